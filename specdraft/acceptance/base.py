"""What an acceptance rule is.

To add one, write a file in this folder with a dataclass that derives from `AcceptanceRule` (most from `Judging`), gives
`kind` a value and says what is accepted, and put a YAML of the same name in `configs/acceptance/`. The fields of the
dataclass are the parameters that users may set. To replay it too, it says what to keep of a recorded text (`arrays`,
`record`) and how a tree's weights follow from that (`weights`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from specdraft.acceptance.weights import level_weights, node_weights
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import Draw, NoSource, Source
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.step import Trial
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch

# What replay needs of each recorded position: the drafter's rank of the token, what the rule recorded there; or there
# is no replay.
Replay = Literal["rank", "record", "none"]

# Array -> what it has a number for at each recorded position: the position, or each child of one node; or, with a root
# there, each node of the trees that a study asks for.
Arrays = Mapping[str, Literal["position", "child", "node"]]

NO_SOURCE = NoSource()

DraftProbs = Callable[[int], "torch.Tensor"]  # depth, from 1 -> what children there are drawn from


class Accepted(NamedTuple):
    """What an acceptance rule decided.

    Attributes:
        nodes: the accepted draft nodes from the root downwards (the root not included).
        tokens: their tokens, one each.
        bonus: the target's own token after the last accepted node.
        tried: every coin flip in the order in which it was made; none of a rule that flips no coins.
    """

    nodes: list[int]
    tokens: list[int]
    bonus: int
    tried: Sequence[Trial] = ()


class Follower(Protocol):
    """Keeps what replay needs of every start of some texts, while their distributions go by, slice by slice."""

    def take(self, first: int, target_probs: torch.Tensor, draft_probs: DraftProbs, tokens: torch.Tensor) -> None:
        """The next slice: `[B, m, vocab]` float64, standardised, and the tokens `[B, m]` at positions from `first`."""

    def record(self) -> dict[str, torch.Tensor]:
        """The rule's `arrays`, `[B, positions, n + 1]` by node of the tree: of each position as a root. What lies
        beyond the end of a text means nothing."""


class AcceptanceRule(ABC):
    """A pure function on probabilities.

    Attributes:
        kind: the rule's name.
        lossless: the target's distribution is kept.
        draw: how the drafter must choose children for this rule. Children that are drawn at random are
            tried in the order in which they were drawn, and none is left out afterwards.
        chain_only: fits chains only.
        greedy_only: fits temperature 0 only.
        only_best: it reads of `target_probs` which token is the most probable one, and no more; logits tell that too.
        needs_draft_probs: reads `draft_probs`.
        replay: what replay needs.
        arrays: what `record` keeps, of a rule with a record.
    """

    kind: str
    lossless: ClassVar[bool] = True
    draw: ClassVar[Draw] = "rank"
    chain_only: ClassVar[bool] = False
    greedy_only: ClassVar[bool] = False
    only_best: ClassVar[bool] = False
    needs_draft_probs: ClassVar[bool] = False
    replay: ClassVar[Replay] = "none"
    arrays: ClassVar[Arrays] = {}

    @abstractmethod
    def accept(
        self,
        tree: DraftTree,
        target_probs: torch.Tensor,
        draft_probs: torch.Tensor | None = None,
        source: Source = NO_SOURCE,
    ) -> Accepted:
        """Decide one step.

        Args:
            tree: the tree that was verified, its tokens on the device of `target_probs`; siblings are
                tried by rank, which is the order of their drawing.
            target_probs: `[n + 1, vocab]` the target's standardised distribution after each node,
                row 0 after the root.
            draft_probs: `[n + 1, vocab]` the drafter's, from which the children were drawn; rows of
                leaves are not used.
            source: where the randomness comes from.
        """

    def record(
        self, target_probs: torch.Tensor, draft_probs: torch.Tensor, tokens: torch.Tensor, count: int, source: Source
    ) -> dict[str, torch.Tensor]:
        """What replay needs of each position of a recorded text, whatever the tree.

        It is kept once for all values of the rule's parameters, so it must not depend on them.

        Args:
            target_probs: `[T, vocab]` float64, standardised, at each recorded position.
            draft_probs: `[T, vocab]` likewise.
            tokens: `[T]` the recorded next tokens.
            count: K, the most children of one node.
            source: of what is drawn once per position, the same for every rule that asks.

        Returns:
            `arrays` in float64: `[T]` by position, `[T, K]` by child.
        """
        raise NotImplementedError(f"the rule {self.kind} keeps no record")

    def follow(self, tree: Topology, texts: int, positions: int) -> Follower:
        """What keeps, in the place of `record`, a rule's `arrays` by node, of so many texts of so many positions."""
        raise NotImplementedError(f"the rule {self.kind} keeps nothing by node")

    def weights(self, topology: Topology, record: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """P(node accepted | a step starts at each root position), `[P, S]` for each node; the root's is 1.

        This is for node-wise rules with an array `pi` by child: P(child i is accepted | the next token is the recorded
        one), whatever the number of children. Others say it in their own way.

        Args:
            topology: the tree.
            record: `arrays` of several texts side by side, `[P, S]`, `[P, S, K]` or, by the tree's nodes,
                `[P, S, n + 1]`, 0 beyond each one's end.
        """
        return node_weights(topology, lambda rank, count: record["pi"][:, :, rank])

    def weights_by_depth(self, topology: Topology, records: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        """As `weights`, where what children are drawn from changes with the depth.

        This is for node-wise rules: every level as one that stands below a root.

        Args:
            topology: the tree.
            records: as of `weights`, of the draft distributions at depth 1, 2, ...; the last for all below.
        """
        return level_weights(topology, lambda star, depth: self.weights(star, of_depth(records, depth)))

    @property
    def label(self) -> str:
        """What the `acceptance` column says: the kind, and the parameters that differ from their defaults."""
        parameters = [
            f
            for f in fields(self)  # type: ignore[arg-type]
            if f.name != "kind" and getattr(self, f.name) != f.default
        ]
        return "-".join([self.kind, *(f"{f.name}{getattr(self, f.name)}" for f in parameters)])

    def check(self) -> None:  # noqa: B027  (most rules have no parameters)
        """Raise `ConfigError` for parameters out of range."""

    def misfit(self, sampling: Sampling, *, chain: bool) -> str | None:
        """Why this rule cannot be used with `sampling` on a tree that is a `chain` or not; None if it can."""
        if self.greedy_only and not sampling.greedy:
            return f"the rule {self.kind} needs sampling.temperature=0"
        if self.chain_only and not chain:
            return f"the rule {self.kind} is for chains only"
        return None


def of_depth(records: Sequence[Mapping[str, np.ndarray]], depth: int) -> Mapping[str, np.ndarray]:
    """What was recorded of children at a depth."""
    return records[min(depth, len(records)) - 1]
