"""Trees fitted to traces: which static tree would have been the best one?

A tree is never scored on prompts that it was fitted on: prompts are halved (within their categories,
seeded), each half is scored with the tree of the other.
"""

from __future__ import annotations

import heapq

import numpy as np

from specdraft.replay.folds import FOLDS
from specdraft.replay.static import PackedRanks, at_depth
from specdraft.trees.optimal import best_tree
from specdraft.trees.shapes import FittedPlan
from specdraft.trees.topology import RankPath, Topology


def starts(ranks: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and position of every place at which a step could start: positions 0..T-1 of each trajectory."""
    rows, positions = np.nonzero(np.arange(ranks.shape[1])[None] < last[:, None])
    return rows, positions


def measured_tree(
    ranks: np.ndarray, last: np.ndarray, node_budget: int, max_depth: int, max_children: int
) -> tuple[Topology, float]:
    """The `node_budget` rank paths that are accepted most often, over all start positions.

    The mean weight of a path is the share of starts after which the drafter's ranks are that path. A
    child's never exceeds its parent's, so growing by the largest weight gives the best tree (ties:
    shallower first, then the lower ranks); no assumption is made on how acceptance depends on depth.

    Args:
        ranks, last: see `replay.PackedRanks`.
        node_budget: draft nodes; fewer where no more fit the limits.
        max_depth, max_children: limits of the tree; a rank is below `max_children`.

    Returns:
        The tree, and the mean number of accepted tokens per start.
    """
    rows, positions = starts(ranks, last)
    total = max(len(rows), 1)
    heap: list[tuple[int, int, RankPath, np.ndarray]] = []

    def push_children(path: RankPath, members: np.ndarray) -> None:
        if len(path) >= max_depth:
            return
        own = at_depth(ranks, len(path) + 1)
        following = own[rows[members], np.minimum(positions[members] + len(path) + 1, ranks.shape[1] - 1)]
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
    return Topology.from_paths(paths), weight / total


def rank_shares(ranks: np.ndarray, last: np.ndarray, count: int) -> np.ndarray:
    """`[count]` the share of positions at which the drafter ranked the target's token k-th: Sequoia's vector."""
    rows, positions = starts(ranks, last)
    following = at_depth(ranks, 1)[rows, positions + 1]
    return np.bincount(following[(following >= 0) & (following < count)], minlength=count) / max(len(following), 1)


def fit(plan: FittedPlan, ranks: np.ndarray, last: np.ndarray) -> Topology:
    """The tree of a fitted shape on these trajectories (see `replay.PackedRanks`)."""
    shape = plan.shape
    if shape.kind == "sequoia":
        vector = rank_shares(ranks, last, shape.max_children)
        return Topology.from_paths(
            best_tree(vector, plan.nodes, max_depth=shape.max_depth, max_children=shape.max_children).paths
        )
    return measured_tree(ranks, last, plan.nodes, shape.max_depth, shape.max_children)[0]


def fitted_trees(plan: FittedPlan, packed: PackedRanks, fold: np.ndarray) -> list[tuple[Topology, np.ndarray]]:
    """Trees with the prompts (indices) that each is scored on: each fold with the tree of the other one.

    `hindsight` is fitted and scored on all prompts.
    """
    everyone = np.arange(len(packed.last))
    if plan.shape.kind == "hindsight":
        return [(fit(plan, packed.ranks, packed.last), everyone)]
    trees = []
    for number in range(FOLDS):
        others = everyone[fold != number]
        trees.append((fit(plan, packed.ranks[others], packed.last[others]), everyone[fold == number]))
    return trees
