"""The rank paths that are accepted most often, counted along recorded texts."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
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
        return measured_tree(packed, node_budget, self.levels(packed), self.max_children).topology

    def fits(self, packed: PackedRanks) -> Callable[[int], Topology]:
        """See `Shape.fits`."""
        trees = MeasuredTrees(packed, self.levels(packed), self.max_children)
        return lambda node_budget: trees.at(node_budget).topology


@dataclass
class Hindsight(Measured):
    """`measured` on the prompts that it is scored on: a reference only; it may not win, and is not an upper bound."""

    kind: str = "hindsight"
    in_sample: ClassVar[bool] = True
    reference: ClassVar[bool] = True


class MeasuredTree(NamedTuple):
    """A tree, and the mean number of tokens accepted per start."""

    topology: Topology
    accepted: float


class _Grown(NamedTuple):
    """A rank path, and the number of starts after which the drafter's ranks are that path."""

    path: RankPath
    starts: int


class MeasuredTrees:
    """The trees of all budgets on some trajectories: each is the beginning of one order of rank paths, which is found
    as far as it is asked for.

    The mean weight of a path is the share of starts after which the drafter's ranks are that path. A
    child's never exceeds its parent's, so growing by the largest weight gives the best tree (ties:
    shallower first, then the lower ranks); no assumption is made on how acceptance depends on depth.

    Args:
        packed: of the trajectories.
        max_depth, max_children: limits of the tree; a rank is below `max_children`.
    """

    def __init__(self, packed: PackedRanks, max_depth: int, max_children: int) -> None:
        self._total = max(int(packed.last.sum()), 1)
        self._coming = _grow(packed, max_depth, max_children)
        self._grown: list[_Grown] = []

    def at(self, node_budget: int) -> MeasuredTree:
        """The `node_budget` rank paths that are accepted most often, over all start positions; fewer where no more fit
        the limits."""
        self._grown += islice(self._coming, max(0, node_budget - len(self._grown)))
        chosen = self._grown[:node_budget]
        topology = Topology.from_paths([node.path for node in chosen])
        return MeasuredTree(topology, sum(node.starts for node in chosen) / self._total)


def measured_tree(packed: PackedRanks, node_budget: int, max_depth: int, max_children: int) -> MeasuredTree:
    """See `MeasuredTrees`."""
    return MeasuredTrees(packed, max_depth, max_children).at(node_budget)


def _grow(packed: PackedRanks, max_depth: int, max_children: int) -> Iterator[_Grown]:
    """Rank paths by falling weight, parents first."""
    ranks, (rows, positions) = packed.ranks, starts(packed)
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
    while heap:
        negative, _, path, members = heapq.heappop(heap)
        yield _Grown(path, -negative)
        push_children(path, members)
