"""What one verification step was: plain data that the decoder yields and every metric is computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.states import State, judged_by_tokens
from specdraft.trees.step_graph import GraphNode, StepGraph
from specdraft.trees.step_picture import step_image, step_svg
from specdraft.trees.told import target_first, target_probs_of

if TYPE_CHECKING:
    import networkx
    import torch


class Trial(NamedTuple):
    """A coin flip that decided a node.

    Attributes:
        node: of the tree.
        chance: the probability that it is accepted, given that it is tried.
        taken: what the flip said.
    """

    node: int
    chance: float
    taken: bool


@dataclass(frozen=True)
class Step:
    """One verification step, after the end of the text was applied.

    Attributes:
        tree: the tree that was sent to the target.
        accepted: the accepted draft nodes that were also emitted.
        tokens: everything emitted: the accepted tokens, then the bonus token if there is one.
        cut: the step met the end (an end-of-sequence token or the length limit) on an accepted
            token, so it has no bonus token.
        draft_s, verify_s, other_s: seconds spent drafting, in the target's forward, and on the rest; `predict_s`:
            scoring and pruning.
        tried: every coin flip in the order in which it was made, whatever the end of the text then left out.
        pruned: drafted nodes that were left out of the tree.
        whole: the tree before nodes were left out, where any were.
        word: the text of a token, where whoever made the step can tell.
        logits: `[n + 1, vocab]` the target's after each node, where a step is watched.
    """

    tree: DraftTree
    accepted: list[int]
    tokens: list[int]
    cut: bool
    draft_s: float = 0.0
    verify_s: float = 0.0
    other_s: float = 0.0
    tried: Sequence[Trial] = ()
    logits: torch.Tensor | None = field(default=None, repr=False)
    pruned: int = 0
    predict_s: float = 0.0
    whole: DraftTree | None = None
    word: Callable[[int], str] | None = field(default=None, repr=False, compare=False)

    @property
    def accepted_tokens(self) -> int:
        return len(self.accepted)

    @property
    def bonus_tokens(self) -> int:
        return len(self.tokens) - len(self.accepted)

    @property
    def states(self) -> list[State]:
        """`[n + 1]` what became of each node: what the coin flips said, or, where none was made, what the tokens
        say."""
        topology = self.tree.topology
        if not self.tried:
            return judged_by_tokens(topology, self.accepted, self.cut)
        # what the rule left out below that lies beyond the text's end
        end = len(self.accepted) if self.cut else topology.depth
        rejected = {trial.node for trial in self.tried if not trial.taken and topology.depths[trial.node] <= end}
        states: list[State] = ["root"]
        states += ["rejected" if node in rejected else "unused" for node in range(1, len(topology))]
        for node in self.accepted:
            states[node] = "accepted"
        return states

    @property
    def graph(self) -> StepGraph:
        """The step for pictures and other programs; target probabilities (softmax at temperature 1) where it was
        watched."""
        topology, tokens, drafted = self.tree.topology, self.tree.token_list(), self.tree.probability_list()
        bonus = None if self.cut else self.tokens[-1]
        target: list[float | None] = [None] * len(topology)
        first: list[bool | None] = [None] * len(topology)
        bonus_prob = None
        if self.logits is not None:
            probs = self.logits.float().softmax(-1)
            target, first = target_probs_of(probs, topology, tokens), target_first(probs, topology, tokens)
            bonus_prob = None if bonus is None else float(probs[self.accepted[-1] if self.accepted else 0, bonus])
        texts = [self._text(token) for token in tokens]
        nodes = [GraphNode(*node) for node in zip(tokens, texts, self.states, drafted, target, first, strict=True)]
        ending = None if bonus is None else GraphNode(bonus, self._text(bonus), "accepted", None, bonus_prob)
        return StepGraph(topology, nodes, self.accepted, ending)

    def _text(self, token: int) -> str | None:
        return None if self.word is None else self.word(token)

    def to_networkx(self) -> networkx.DiGraph:
        """See `StepGraph.to_networkx`."""
        return self.graph.to_networkx()

    def to_dot(self) -> str:
        """See `StepGraph.to_dot`."""
        return self.graph.to_dot()

    def to_svg(self) -> str:
        """A picture of the step."""
        return step_svg(self.graph)

    def _repr_html_(self) -> str:
        return step_image(self.graph)
