"""Dynamic trees that are large where the drafter is unsure and small where it is certain."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

from specdraft.errors import ConfigError
from specdraft.trees.adaptive_growth import AdaptiveGrowth
from specdraft.trees.shapes.base import BaseShape, Growing, Limits, check_budget, check_positive
from specdraft.trees.shapes.best_first import BestFirstPlan


@dataclass
class Adaptive(BaseShape):
    """Recursive expansion: a node has children while it is about as probable as the best leaf.

    A node's score is the logarithm of its cumulative draft probability (temperature 1). The tree grows level by level:
    of the last level those nodes are expanded whose score is at least the best leaf's less `margin`; the leaves are the
    nodes without children at that moment, of whatever depth. Of the children of all expanded nodes the next level keeps
    those within `margin` of the best of them, the best first, at most `max_nodes_per_level` and at most what is left of
    the budget (equals: the lower rank path first). It ends when no node is expanded, or at a limit.

    The trees of all budgets are nested: until the budget is full nothing depends on it, and what fills it are the best
    nodes of one level. So the tree of n nodes is the first n of a larger budget's, level by level, of a level the best
    first.

    Attributes:
        margin: in nats: 3 is a factor of 20 between probabilities.
        max_nodes_per_level: nodes of one depth at most.
        max_depth: draft levels at most; each costs one forward of the drafter.
        max_step_s: no level is begun after so many seconds of a step's drafting; only in live decoding.
    """

    kind: str = "adaptive"
    margin: float = 3.0
    max_nodes_per_level: int = 16
    max_depth: int = 8
    max_step_s: float | None = None

    @property
    def timed(self) -> bool:
        """See `Shape.timed`."""
        return self.max_step_s is not None

    def limits(self, node_budget: int) -> Limits:
        """See `Shape.limits`."""
        check_budget(node_budget)
        check_positive(self, "max_depth")
        check_positive(self, "max_nodes_per_level")
        if not 0 <= self.margin < inf:
            raise ConfigError(f"tree.margin={self.margin} is out of range for {self.kind}; expected 0 or more nats")
        if self.max_step_s is not None and not 0 < self.max_step_s < inf:
            raise ConfigError(f"tree.max_step_s={self.max_step_s} is out of range; expected seconds, above 0")
        return Limits(node_budget, min(node_budget, self.max_depth), min(node_budget, self.max_nodes_per_level))

    def at(self, node_budget: int) -> AdaptivePlan:
        """See `Shape.at`. Raises as `limits`."""
        self.limits(node_budget)
        limits = (node_budget, self.max_depth, self.max_nodes_per_level)
        return AdaptivePlan(*limits, margin=self.margin, max_step_s=self.max_step_s)


@dataclass(frozen=True)
class AdaptivePlan(BestFirstPlan):
    """See `Adaptive`; nodes are ranked by the drafter's probabilities, as those of best-first trees.

    Attributes:
        max_children: nodes of one level, and so children of one node at most.
        margin, max_step_s: see `Adaptive`.
    """

    max_step_s: float | None = None

    @property
    def nested(self) -> BestFirstPlan | None:
        """See `Plan.nested`: with a limit of time nobody knows what trees there would have been."""
        return None if self.max_step_s is not None else self

    def growth(self, roots: int, vocab: int, whole: bool = False) -> Growing:
        """See `NestedPlan.growth`."""
        until = inf if self.max_step_s is None else time.perf_counter() + self.max_step_s
        limits = (self.nodes, self.depth, self.looked_at(vocab), self.max_children)
        return AdaptiveGrowth(roots, *limits, self.margin, until)
