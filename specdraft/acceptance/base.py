"""What an acceptance rule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import Draw, NoSource, Source
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.step import Trial

if TYPE_CHECKING:
    import torch

# What replay needs of each recorded position: the drafter's rank of the token, `pi` by child index, k-seq's
# table, the unclipped ratio of draft to target probability; or there is no replay.
Replay = Literal["rank", "pi", "table", "ratio", "none"]

NO_SOURCE = NoSource()


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


class AcceptanceRule(ABC):
    """A pure function on probabilities.

    Attributes:
        kind: the rule's name.
        lossless: the target's distribution is kept.
        draw: how the drafter must choose children for this rule. Children that are drawn at random are
            tried in the order in which they were drawn, and none is left out afterwards.
        chain_only: fits chains only.
        greedy_only: fits temperature 0 only.
        needs_draft_probs: reads `draft_probs`.
        replay: what replay needs.
    """

    kind: str
    lossless: ClassVar[bool] = True
    draw: ClassVar[Draw] = "rank"
    chain_only: ClassVar[bool] = False
    greedy_only: ClassVar[bool] = False
    needs_draft_probs: ClassVar[bool] = False
    replay: ClassVar[Replay] = "none"

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

    @property
    def label(self) -> str:
        """What the `acceptance` column says: the kind, and the parameters that differ from their defaults."""
        own = [f for f in fields(self) if f.name != "kind" and getattr(self, f.name) != f.default]  # type: ignore[arg-type]
        return "-".join([self.kind, *(f"{f.name}{getattr(self, f.name)}" for f in own)])

    def check(self) -> None:  # noqa: B027  (most rules have no parameters)
        """Raise `ConfigError` for parameters out of range."""

    def misfit(self, sampling: Sampling, *, chain: bool) -> str | None:
        """Why this rule cannot be used with `sampling` on a tree that is a `chain` or not; None if it can."""
        if self.greedy_only and not sampling.greedy:
            return f"the rule {self.kind} needs sampling.temperature=0"
        if self.chain_only and not chain:
            return f"the rule {self.kind} is for chains only"
        return None
