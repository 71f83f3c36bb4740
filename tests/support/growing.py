"""Trees that grow under several roots, in whatever order their nodes are expanded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from specdraft.trees.growth import GrownTrees, Growth
from specdraft.trees.topology import RankPath

VOCAB = 6
Said = Callable[[int, RankPath], np.ndarray]


def said(seed: int, path: RankPath) -> np.ndarray:
    """Logarithms of the probabilities of a node's children, best first; some are equal."""
    rng = np.random.default_rng([seed, *path])
    weights = np.sort(rng.integers(1, 4, VOCAB) ** rng.integers(1, 4))[::-1]
    return np.asarray(np.log(weights / weights.sum()))


def paths_of(trees: GrownTrees, root: int) -> list[RankPath]:
    paths: list[RankPath] = [()]
    for parent, rank in zip(trees.parent[root, : trees.sizes[root]], trees.rank[root], strict=False):
        paths.append((*paths[parent], int(rank)))
    return paths[1:]


def grown(
    said: Said, seeds: list[int], growth: Growth, pick: np.random.Generator | None = None
) -> list[list[RankPath]]:
    """Trees of several roots, by what `said` is of a seed's node; with `pick` some of the frontier at a time."""
    path: dict[int, RankPath] = dict.fromkeys(range(len(seeds)), ())
    root = {number: number for number in path}
    while len(growth.frontier):
        some = growth.frontier
        if pick is not None and len(path) > len(seeds):
            some = np.sort(pick.choice(some, pick.integers(1, len(some) + 1), replace=False))
        rows = np.stack([said(seeds[root[n]], path[n]) for n in some.tolist()])[:, : growth.max_children]
        growth.add(np.tile(np.arange(rows.shape[1]), (len(rows), 1)), rows, some)
        nodes = growth.nodes_at(growth.newest)
        for number, parent, rank in zip(
            growth.newest.tolist(), nodes.parent.tolist(), nodes.rank.tolist(), strict=True
        ):
            path[number], root[number] = (*path[parent], rank), root[parent]
    return [paths_of(growth.trees(), number) for number in range(len(seeds))]
