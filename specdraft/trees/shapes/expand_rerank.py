"""EAGLE-2's own dynamic trees (Li et al. 2024, section 4): expand a beam of each level, then rerank all candidates."""

from __future__ import annotations

from dataclasses import dataclass

from specdraft.trees.beam_growth import BeamGrowth
from specdraft.trees.shapes.base import BaseShape, Growing, Limits, check_budget, check_positive
from specdraft.trees.shapes.best_first import BestFirstPlan


@dataclass
class ExpandRerank(BaseShape):
    """Of each level the `top_k` nodes with the largest cumulative draft probability have `top_k` children each; of all
    of these the `budget` most probable ones are the tree. Equals: the shallower node first, then the lower rank path.

    Unlike `best_first` it misses nodes below what fell out of a beam. Trees of smaller budgets are parts of larger
    ones.
    SGLang's settings are `steps`, `top_k` and `budget + 1`; EAGLE-2's code has `top_k` 10, 8 steps and 59 nodes.

    Attributes:
        top_k: nodes of a level that are expanded, and children of each.
        steps: draft levels; each costs one forward of the drafter.
    """

    kind: str = "expand_rerank"
    top_k: int = 10
    steps: int = 8

    def limits(self, node_budget: int) -> Limits:
        """See `Shape.limits`."""
        check_budget(node_budget)
        check_positive(self, "top_k")
        check_positive(self, "steps")
        return Limits(self.most(node_budget), min(node_budget, self.steps), min(node_budget, self.top_k))

    def most(self, node_budget: int) -> int:
        """Nodes of a tree at most: a budget may be more than there are candidates."""
        return min(node_budget, self.top_k + (self.steps - 1) * self.top_k**2)

    def at(self, node_budget: int) -> ExpandRerankPlan:
        """See `Shape.at`. Raises as `limits`."""
        self.limits(node_budget)
        return ExpandRerankPlan(node_budget, self.steps, self.top_k, beam=self.top_k)


@dataclass(frozen=True)
class ExpandRerankPlan(BestFirstPlan):
    """See `ExpandRerank`; `beam` is its `top_k`."""

    def growth(self, roots: int, vocab: int, whole: bool = False) -> Growing:
        """See `NestedPlan.growth`."""
        assert self.beam is not None
        return BeamGrowth(roots, self.nodes, self.depth, min(self.max_children, vocab), self.beam)

    def looked_at(self, vocab: int) -> int:
        """See `NestedPlan.looked_at`."""
        return min(self.max_children, vocab)
