"""Dynamic trees: in each step the nodes that the drafter itself thinks most likely to be accepted."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log
from typing import ClassVar

from specdraft.errors import ConfigError
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.growth import Growth
from specdraft.trees.shapes.base import BaseShape, DraftView, Limits, check_budget, check_positive
from specdraft.trees.topology import Topology


@dataclass
class BestFirst(BaseShape):
    """The `budget` nodes with the largest cumulative draft probability (EAGLE-2's idea, OPT-Tree's objective).

    A node's cumulative probability is the product of the drafter's probabilities (softmax of its raw
    logits) from the root down to it. Equals: the shallower node first, then the lower rank path.

    Attributes:
        max_depth: draft levels at most; each costs one forward of the drafter.
        max_children: children of one node at most.
        min_prob: nodes with a smaller cumulative probability are left out, so a tree can be smaller than its budget.
    """

    kind: str = "best_first"
    max_depth: int = 8
    max_children: int = 16
    min_prob: float = 0.0

    def limits(self, node_budget: int) -> Limits:
        """See `Shape.limits`."""
        check_budget(node_budget)
        check_positive(self, "max_depth")
        check_positive(self, "max_children")
        if not 0 <= self.min_prob < 1:
            raise ConfigError(
                f"tree.min_prob={self.min_prob} is out of range for {self.kind}; expected 0 (off) or more, below 1"
            )
        return Limits(node_budget, min(node_budget, self.max_depth), min(node_budget, self.max_children))

    def at(self, node_budget: int) -> BestFirstPlan:
        """See `Shape.at`. Raises as `limits`."""
        self.limits(node_budget)
        least = log(self.min_prob) if self.min_prob > 0 else -inf
        return BestFirstPlan(node_budget, self.max_depth, self.max_children, least)


@dataclass(frozen=True)
class BestFirstPlan:
    """The limits of trees that differ from step to step.

    Attributes:
        nodes: the budget.
        max_depth, max_children: see `BestFirst`; plans with equal ones share what replay records.
        least: the logarithm of the least cumulative probability.
    """

    nodes: int
    max_depth: int
    max_children: int
    least: float = -inf
    dynamic: ClassVar[bool] = True
    topology: ClassVar[None] = None

    @property
    def depth(self) -> int:
        """The most levels that a tree can have."""
        return min(self.nodes, self.max_depth)

    @property
    def nested(self) -> BestFirstPlan:
        """See `Plan.nested`."""
        return self

    def growth(self, roots: int, vocab: int) -> Growth:
        """Trees under so many roots, not grown yet."""
        return Growth(roots, self.nodes, self.depth, min(self.max_children, self.nodes, vocab), self.least)

    def expand(self, view: DraftView) -> DraftTree:
        """One forward and one transfer to the host for each level."""
        growth = self.growth(1, view.vocab)
        scored = 0
        slot = {0: 0}  # node -> its turn among the nodes that were scored
        while len(growth.frontier):
            above = growth.nodes_at(growth.frontier)
            children = view.score([slot.get(p, -1) for p in above.parent.tolist()], above.token, growth.max_children)
            slot |= {node: scored + i for i, node in enumerate(growth.frontier.tolist())}
            scored += len(growth.frontier)
            growth.add(*children)
        grown = growth.trees()
        nodes, parent, rank, token, log_prob = (field[0, : grown.sizes[0]] for field in grown[1:])
        topology = Topology([-1, *parent.tolist()], [0, *rank.tolist()])
        return view.compose(topology, token, log_prob, [slot.get(node, -1) for node in nodes.tolist()])
