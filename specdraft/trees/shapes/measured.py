"""The rank paths that are accepted most often, counted along recorded texts."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from specdraft.trees.ranks import PackedRanks, at_depth, starts
from specdraft.trees.shapes.fitted import FittedShape
from specdraft.trees.topology import RankPath, Topology


@dataclass
class Measured(FittedShape):
    """The rank paths that were accepted most often on the other half of the prompts."""

    kind: str = "measured"

    def fit(self, node_budget: int, packed: PackedRanks) -> Topology:
        """See `Shape.fit`."""
        return measured_tree(packed, node_budget, self.max_depth, self.max_children).topology


@dataclass
class Hindsight(Measured):
    """`measured` fitted on the very prompts that it is scored on: a reference, never a winner, no bound."""

    kind: str = "hindsight"
    in_sample: ClassVar[bool] = True
    reference: ClassVar[bool] = True


class MeasuredTree(NamedTuple):
    """A tree, and the mean number of tokens accepted per start."""

    topology: Topology
    accepted: float


def measured_tree(packed: PackedRanks, node_budget: int, max_depth: int, max_children: int) -> MeasuredTree:
    """The `node_budget` rank paths that are accepted most often, over all start positions.

    The mean weight of a path is the share of starts after which the drafter's ranks are that path. A
    child's never exceeds its parent's, so growing by the largest weight gives the best tree (ties:
    shallower first, then the lower ranks); no assumption is made on how acceptance depends on depth.

    Args:
        packed: of the trajectories.
        node_budget: draft nodes; fewer where no more fit the limits.
        max_depth, max_children: limits of the tree; a rank is below `max_children`.
    """
    ranks, (rows, positions) = packed.ranks, starts(packed)
    total = max(len(rows), 1)
    heap: list[tuple[int, int, RankPath, np.ndarray]] = []

    def push_children(path: RankPath, members: np.ndarray) -> None:
        if len(path) >= max_depth:
            return
        below = at_depth(ranks, len(path) + 1)
        following = below[rows[members], np.minimum(positions[members] + len(path) + 1, ranks.shape[1] - 1)]
        for rank in range(max_children):
            chosen = members[following == rank]
            heapq.heappush(heap, (-len(chosen), len(path) + 1, (*path, rank), chosen))

    push_children((), np.arange(len(rows)))
    paths: list[RankPath] = []
    weight = 0
    while heap and len(paths) < node_budget:
        negative, _, path, members = heapq.heappop(heap)
        paths.append(path)
        weight -= negative
        push_children(path, members)
    return MeasuredTree(Topology.from_paths(paths), weight / total)
