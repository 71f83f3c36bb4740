"""What a drafter is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from specdraft.acceptance import AcceptanceRule
from specdraft.acceptance.base import NO_SOURCE
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import Draw, Source
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan


@dataclass(frozen=True)
class Drawing:
    """How the children of a node are chosen.

    Attributes:
        draw: by rank, or at random from the standardised distribution.
        sampling: what standardised means.
        source: where the randomness comes from.
    """

    draw: Draw = "rank"
    sampling: Sampling = field(default_factory=Sampling)
    source: Source = NO_SOURCE

    @classmethod
    def by(cls, rule: AcceptanceRule, sampling: Sampling, source: Source) -> Drawing:
        """As the rule needs it."""
        return cls(rule.draw, sampling, source)


BY_RANK = Drawing()


class Drafter(Protocol):
    """Proposes trees below the last committed token."""

    def begin(self, prompt_ids: Sequence[int]) -> None:
        """Start over with a prompt."""

    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """One tree below `root`, the last committed token."""

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int]) -> None:
        """Of the last tree, these nodes were accepted; the next root follows them."""
