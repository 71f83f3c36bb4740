"""Beam search over the drafter (ReDrafter: Zhang et al. 2024, section 3; Cheng et al. 2024), shared prefixes merged."""

from __future__ import annotations

from dataclasses import dataclass

from specdraft.trees.beam_growth import BeamSearchGrowth
from specdraft.trees.shapes.base import BaseShape, Growing, Limits, check_budget, check_positive
from specdraft.trees.shapes.best_first import BestFirstPlan


@dataclass
class BeamSearch(BaseShape):
    """The `width` candidate sequences of `steps` tokens that beam search by cumulative draft probability ends with, as
    a tree: a prefix that several share is there once. Of these nodes the first `budget`, the best candidate's first,
    then what the next one adds. Equals: the lower rank path first. A child can be there without its better siblings.

    Unlike `expand_rerank` it sends nothing that fell out of the beam, and follows the likeliest sequences to their end.
    Trees of smaller budgets are parts of larger ones; the search is the same for all.

    Attributes:
        width: candidates that are kept at each step.
        steps: tokens of a candidate; each costs one forward of the drafter.
    """

    kind: str = "beam_search"
    width: int = 4
    steps: int = 4

    def limits(self, node_budget: int) -> Limits:
        """See `Shape.limits`; a small budget is searched as deeply."""
        check_budget(node_budget)
        check_positive(self, "width")
        check_positive(self, "steps")
        return Limits(min(node_budget, self.width * self.steps), self.steps, self.width)

    def at(self, node_budget: int) -> BeamSearchPlan:
        """See `Shape.at`. Raises as `limits`."""
        self.limits(node_budget)
        return BeamSearchPlan(node_budget, self.steps, self.width, beam=self.width, searched=True)


@dataclass(frozen=True)
class BeamSearchPlan(BestFirstPlan):
    """See `BeamSearch`; `beam` is its `width`."""

    @property
    def depth(self) -> int:
        """The levels that are searched, whatever the budget."""
        return self.max_depth

    def growth(self, roots: int, vocab: int, whole: bool = False) -> Growing:
        """See `NestedPlan.growth`."""
        assert self.beam is not None
        return BeamSearchGrowth(roots, self.nodes, self.depth, self.looked_at(vocab), self.beam)

    def looked_at(self, vocab: int) -> int:
        """See `NestedPlan.looked_at`."""
        return min(self.max_children, vocab)
