"""One verification step as a graph for other programs: NetworkX, Graphviz."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from specdraft.errors import ConfigError
from specdraft.trees.layout import first_choices
from specdraft.trees.states import State
from specdraft.trees.tokens import LONGEST_TOKEN, token_text
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import networkx

MARKS: dict[State, str] = {"root": "", "accepted": "\u2713 ", "rejected": "\u2717 ", "unused": ""}
FIRST_DRAFT, FIRST_TARGET, BONUS, END = "\u2605", "\u25ce", "\u25c6", "\u25a0"
DOT_LOOKS: dict[State, str] = {
    "root": 'color="#1a1a1a", penwidth=2',
    "accepted": 'color="#0b5fa5", fillcolor="#dcebf8", style="filled,rounded", penwidth=3',
    "rejected": 'color="#b34700", style="dashed,rounded"',
    "unused": 'color="#6b6b6b", style="dotted,rounded"',
}


class GraphNode(NamedTuple):
    """A node of the tree.

    Attributes:
        token: its id; None where it is unknown.
        text: of the token, as it is; None where it, or what it says, is unknown.
        state: what became of it.
        draft_prob: the drafter's probability of the token after its parent (the root's is 1).
        target_prob: the target's.
        target_first: whether it is the target's most probable token after its parent; None where that is unknown.
    """

    token: int | None
    text: str | None
    state: State
    draft_prob: float | None = None
    target_prob: float | None = None
    target_first: bool | None = None

    def shown(self, longest: int | None = LONGEST_TOKEN) -> str:
        """The text so that white space can be seen, in so many columns; the id where no text is known."""
        if self.text is not None:
            return token_text(self.text, longest)
        return "?" if self.token is None else f"#{self.token}"


@dataclass(frozen=True)
class StepGraph:
    """A step with the texts of its tokens.

    Attributes:
        topology: the tree.
        nodes: `[n + 1]`, the root first.
        accepted: the accepted nodes from the root downwards.
        bonus: the bonus token as a node without a place in the tree; None where the text ended on an accepted token.
    """

    topology: Topology
    nodes: Sequence[GraphNode]
    accepted: Sequence[int]
    bonus: GraphNode | None

    @property
    def first_choices(self) -> list[int]:
        """See `layout.first_choices`."""
        return first_choices(self.topology, [node.draft_prob for node in self.nodes])

    @property
    def last(self) -> int:
        """The node that the bonus token follows."""
        return self.accepted[-1] if self.accepted else 0

    def to_networkx(self) -> networkx.DiGraph:
        """A directed graph from the root downwards, with the fields of `GraphNode`, `depth` and `rank_path` at its
        nodes, and `accepted`, `first_choices`, `bonus` and `bonus_text` in `graph.graph`.

        Raises:
            ConfigError: NetworkX is not installed.
        """
        try:
            import networkx
        except ImportError as error:
            raise ConfigError("to_networkx() needs networkx: pip install networkx") from error
        graph = networkx.DiGraph(
            accepted=list(self.accepted),
            first_choices=self.first_choices,
            bonus=self.bonus and self.bonus.token,
            bonus_text=self.bonus and self.bonus.text,
        )
        for index, node in enumerate(self.nodes):
            depth, path = int(self.topology.depths[index]), self.topology.paths[index]
            graph.add_node(index, **node._asdict(), depth=depth, rank_path=path)
        graph.add_edges_from((int(parent), child) for child, parent in enumerate(self.topology.parents) if child)
        return graph

    def to_dot(self) -> str:
        """The step in Graphviz's language, from left to right; `dot -Tpdf` draws it."""
        best = set(self.first_choices)
        lines = ["digraph step {", '  rankdir=LR; node [shape=box, style=rounded, fontname="monospace"];']
        for index, node in enumerate(self.nodes):
            mark = f" {FIRST_DRAFT}" * (index in best) + f" {FIRST_TARGET}" * bool(node.target_first)
            probs = f"draft {prob_text(node.draft_prob)}  target {prob_text(node.target_prob)}" if index else "root"
            label = dot_text(f"{MARKS[node.state]}{node.shown()}{mark}") + r"\n" + dot_text(probs)
            lines.append(f'  n{index} [label="{label}", {DOT_LOOKS[node.state]}];')
        for child, parent in enumerate(self.topology.parents.tolist()):
            if child:
                look = "solid" if self.nodes[child].state == "accepted" else "dashed"
                lines.append(f"  n{parent} -> n{child} [style={look}];")
        if self.bonus:
            label = dot_text(f"{BONUS} {self.bonus.shown()}") + r"\n" + f"target {prob_text(self.bonus.target_prob)}"
            lines.append(f'  bonus [label="{label}", shape=oval, color="#7a2f6f", fillcolor="#f6e3f1", style=filled];')
            lines.append(f'  n{self.last} -> bonus [color="#7a2f6f"];')
        return "\n".join([*lines, "}", ""])


def prob_text(prob: float | None) -> str:
    """A probability in a picture."""
    return "?" if prob is None else f"{prob:.3f}"


def dot_text(text: str) -> str:
    """Text inside a quoted label: Graphviz reads escapes that begin with a backslash, and HTML's entities."""
    for letter, written in (("\\", r"\\"), ('"', r"\""), ("&", "&amp;")):
        text = text.replace(letter, written)
    return text
