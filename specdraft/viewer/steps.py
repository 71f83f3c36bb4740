"""One verification step as it is shown: the tree, every probability that is known, and why it ended where it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from specdraft.errors import plain_text
from specdraft.models.prompt_reader import Piece
from specdraft.trees.layout import first_choices, layout
from specdraft.trees.states import State
from specdraft.trees.step_graph import GraphNode, StepGraph
from specdraft.trees.tokens import token_text
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    from specdraft.study.combination import Combination
    from specdraft.study.generate import Generation

Word = Callable[[int], str]  # the text of a token


class Seen(NamedTuple):
    """What is known of one node.

    Attributes:
        token: its id; None where it is unknown.
        state: what became of it.
        draft_prob: the drafter's probability of the token after its parent (the root's is 1).
        target_prob: the target's.
        target_first: it is the target's most probable token after its parent; None where that is unknown.
        accept_prob: the probability of the coin flip that decided it, where one did.
        recorded: the token and its draft probability come from a trace.
    """

    token: int | None
    state: State
    draft_prob: float | None = None
    target_prob: float | None = None
    target_first: bool | None = None
    accept_prob: float | None = None
    recorded: bool = False


@dataclass(frozen=True)
class ShownStep:
    """One verification step.

    Attributes:
        topology: the tree.
        nodes: `[n + 1]`, the root first.
        accepted: the accepted nodes from the root downwards.
        bonus: the bonus token; None where the text ended on an accepted token.
        bonus_prob: the target's probability of it.
        why: one line on why the accepted path ended where it did.
    """

    topology: Topology
    nodes: Sequence[Seen]
    accepted: Sequence[int]
    bonus: int | None
    bonus_prob: float | None
    why: str

    @property
    def tokens(self) -> list[int]:
        """What the step emitted."""
        kept = [self.nodes[node].token for node in self.accepted]
        return [token for token in [*kept, self.bonus] if token is not None]

    @cached_property
    def cumulative(self) -> list[float | None]:
        """`[n + 1]` logarithms of the drafter's probabilities from the root down; None below what is unknown."""
        sums: list[float | None] = [0.0]
        for node in range(1, len(self.nodes)):
            above, last = sums[int(self.topology.parents[node])], log_prob(self.nodes[node].draft_prob)
            sums.append(None if above is None or last is None else above + last)
        return sums

    @cached_property
    def best_path(self) -> list[int]:
        """The drafter's first choice at every level, from the root to a leaf; empty while one on the way is unknown."""
        return first_choices(self.topology, [seen.draft_prob for seen in self.nodes])

    def graph(self, word: Word) -> StepGraph:
        """The step for pictures and other programs."""
        texts = [None if seen.token is None else word(seen.token) for seen in self.nodes]
        nodes = [GraphNode(seen.token, text, *seen[1:5]) for seen, text in zip(self.nodes, texts, strict=True)]
        bonus = (
            None if self.bonus is None else GraphNode(self.bonus, word(self.bonus), "accepted", None, self.bonus_prob)
        )
        return StepGraph(self.topology, nodes, self.accepted, bonus)


@dataclass(frozen=True)
class Shown:
    """A whole decoded or replayed prompt.

    Attributes:
        about: what was run, as pairs of a name and a value for people.
        prompt: what the target read, in pieces.
        text: what it emitted.
        first: the token that follows the prompt.
        steps: every verification step.
        word: the text of a token.
        notes: what to know when reading it.
    """

    about: Mapping[str, str]
    prompt: Sequence[Piece]
    text: str
    first: int
    steps: Sequence[ShownStep]
    word: Word
    notes: Sequence[str] = ()

    @property
    def marked(self) -> bool:
        """Whether a chat template goes around the prompt, so that what follows is a reply."""
        return any(piece.mark for piece in self.prompt)

    @property
    def before_reply(self) -> list[Piece]:
        """The prompt, with a line end where a reply would not begin a line of its own."""
        glued = self.marked and not self.prompt[-1].text.endswith("\n")
        return [*self.prompt, *([Piece("\n", True)] if glued else [])]

    def as_data(self) -> dict[str, Any]:
        """Everything, as JSON can hold it: what the page is made from."""
        ids = {self.first} | {seen.token for step in self.steps for seen in step.nodes if seen.token is not None}
        ids |= {step.bonus for step in self.steps if step.bonus is not None}
        words = {
            str(token): {"text": self.word(token), "shown": token_text(self.word(token), None)} for token in sorted(ids)
        }
        return {
            "about": dict(self.about),
            "notes": list(self.notes),
            "marked": self.marked,
            "prompt": [{"text": plain_text(piece.text), "mark": piece.mark} for piece in self.before_reply],
            "first": self.first,
            "words": words,
            "steps": self.trees_as_data(),
        }

    def trees_as_data(self) -> list[dict[str, Any]]:
        """Every step's tree: its nodes with their cumulative scores, the drafter's first choices, the accepted path."""
        return [_step_data(step) for step in self.steps]


class Showing(Protocol):
    """A prompt on its way through the steps: iterate over `steps` once, then ask for the rest."""

    @property
    def prompt(self) -> Sequence[Piece]:
        """What the target reads, in pieces."""

    @property
    def word(self) -> Word:
        """The text of a token."""

    def steps(self) -> Iterator[ShownStep]:
        """Every step as it happens."""

    def text(self) -> str:
        """What has been emitted so far, as it stands behind the prompt."""

    def shown(self) -> Shown:
        """All of it."""

    def result(self) -> Generation:
        """Its counts."""


def about(combination: Combination) -> dict[str, str]:
    """What was run, for people."""
    keys, sampling = combination.keys, combination.sampling
    drawn = "greedy" if sampling.greedy else f"temperature {sampling.temperature:g}"
    drawn += "" if sampling.greedy or not sampling.top_k else f", top-k {sampling.top_k}"
    drawn += "" if sampling.greedy or sampling.top_p == 1 else f", top-p {sampling.top_p:g}"
    drawn += f", draft temperature {keys['draft_temperature']}" if combination.drawn.temperatures else ""
    seed = {} if sampling.greedy else {"seed": str(combination.settings.seed)}
    tree = {"tree": f"{keys['tree']}, {'at most ' if combination.together.dynamic else ''}{keys['nodes']} nodes"}
    pruned = {"pruning": keys["pruning"]} if combination.pruning.prunes else {}
    pruned |= {"length": keys["length"]} if combination.length.sizes else {}
    names = {"pair": keys["pair"], "target": keys["target"], "drafter": keys["draft"]}
    return names | tree | pruned | {"acceptance": combination.rule.kind, "sampling": drawn} | seed


def probability_note(combination: Combination, drawn: bool) -> str:
    """What the shown probabilities are."""
    raw, standardised = "softmax at temperature 1", "after temperature, top-k and top-p"
    target = raw if combination.sampling.greedy else standardised
    return f"target probabilities: {target}; draft probabilities: {standardised if drawn else raw}"


def _step_data(step: ShownStep) -> dict[str, Any]:
    nodes = []
    for place, seen, total in zip(placed_nodes(step.topology), step.nodes, step.cumulative, strict=True):
        nodes.append(place | seen._asdict() | {"log_prob": log_prob(seen.draft_prob), "cumulative_log_prob": total})
    data = {"nodes": nodes, "accepted": list(step.accepted), "best": step.best_path, "why": step.why}
    return data | {"bonus": step.bonus, "bonus_prob": step.bonus_prob, "depth": step.topology.depth}


def placed_nodes(topology: Topology) -> list[dict[str, Any]]:
    """Each node's parent, rank path and place in a drawing, as JSON can hold it."""
    columns = zip(topology.parents.tolist(), topology.paths, layout(topology), strict=True)
    return [{"parent": parent, "path": list(path), "x": x, "y": y} for parent, path, (x, y) in columns]


def log_prob(prob: float | None) -> float | None:
    """The natural logarithm; None of what is unknown or 0."""
    return log(prob) if prob else None


def quoted(word: Word, token: int) -> str:
    """A token in a sentence."""
    return f"\u201c{token_text(word(token))}\u201d"


def number(prob: float | None) -> str:
    """A probability in a sentence."""
    return "?" if prob is None else f"{prob:.3f}" if prob >= 0.0005 or prob == 0 else f"{prob:.0e}"


ENDED = "the text ends here: its last token was accepted, so there is no bonus token"


def nothing_below(word: Word, token: int) -> str:
    """The whole path was accepted."""
    return (
        f"the path was accepted to its end: nothing was drafted below {quoted(word, token)}, and the bonus "
        "token is the target's next one"
    )
