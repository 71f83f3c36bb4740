"""Trees that grow level by level as far as the drafter is certain, under several roots at once."""

from __future__ import annotations

import time
from math import inf

import numpy as np

from specdraft.trees.growth import GrownTrees, Nodes


class AdaptiveGrowth:
    """See `shapes.adaptive.Adaptive` for the trees, and `Growth` for how one is grown and what the attributes say.

    A level of a tree is chosen once all nodes that may have children there were expanded, in whatever order that was.

    Args:
        roots, node_budget, max_depth, max_children: see `Growth`.
        max_per_level: nodes of one depth of a tree at most.
        margin: how far below the best leaf a node may be.
        until: no level is begun after this reading of `time.perf_counter`.
    """

    def __init__(
        self,
        roots: int,
        node_budget: int,
        max_depth: int,
        max_children: int,
        max_per_level: int,
        margin: float,
        until: float = inf,
    ) -> None:
        self.node_budget, self.max_depth, self.max_children = node_budget, max_depth, max_children
        self._roots, self._margin, self._until, self._per_level = roots, margin, until, max_per_level
        none, zero = np.full(roots, -1), np.zeros(roots, dtype=np.int64)
        self._all = Nodes(none, zero, none, zero, np.zeros(roots))
        self._root, self._kept = np.arange(roots), np.ones(roots, dtype=bool)
        self._turn = zero  # of a kept node among those of its level, by rank path
        self._size, self._waiting = zero.copy(), zero + 1  # `[roots]` draft nodes; nodes that are still to be expanded
        self._best_child = np.full(roots, -inf)  # `[roots]` of the level that is being found
        self._best_above = np.full(roots, -inf)  # `[roots]` of the leaves above the last level
        self._level, self._found = np.arange(roots), none[:0]  # nodes of the last levels, and of those being found
        self.newest, self.frontier, self.place, self.ahead = none[:0], np.arange(roots), zero, zero
        self.fed: list[int] = []

    def nodes_at(self, numbers: np.ndarray) -> Nodes:
        """These nodes."""
        return Nodes(*(field[numbers] for field in self._all))

    def add(self, tokens: np.ndarray, log_probs: np.ndarray, some: np.ndarray | None = None) -> None:
        """See `Growth.add`."""
        expanded = self.frontier if some is None else some
        self.fed.append(len(expanded))
        above, root = self.nodes_at(expanded), self._root[expanded]
        reached = above.log_prob[:, None] + log_probs
        np.maximum.at(self._best_child, root, reached[:, 0])
        row, rank = np.nonzero((reached >= self._best_child[root][:, None] - self._margin) & (reached > -inf))
        self._append(Nodes(expanded[row], rank, tokens[row, rank], above.depth[row] + 1, reached[row, rank]), root[row])
        np.subtract.at(self._waiting, root, 1)
        self._go_on_with(np.setdiff1d(self.frontier, expanded, assume_unique=True))
        done = np.unique(root)
        self._next_levels(done[self._waiting[done] == 0])

    def _append(self, nodes: Nodes, root: np.ndarray) -> None:
        count = len(root)
        self.newest = np.arange(len(self._root), len(self._root) + count)
        self._all = Nodes(*(np.concatenate(both) for both in zip(self._all, nodes, strict=True)))
        self._root, self._kept = np.concatenate([self._root, root]), np.append(self._kept, np.zeros(count, dtype=bool))
        self._turn = np.append(self._turn, np.zeros(count, dtype=np.int64))
        self._found = np.append(self._found, self.newest)

    def _next_levels(self, done: np.ndarray) -> None:
        """Choose the next level of these roots, and which of its nodes are expanded."""
        whole = np.isin(self._root[self._found], done)
        chosen, self._found = self._best_of(self._found[whole]), self._found[~whole]
        self._kept[chosen] = True
        self._size += np.bincount(self._root[chosen], minlength=self._roots)
        self._leave_behind(done, chosen)
        value, root = self._all.log_prob[chosen], self._root[chosen]
        best = np.maximum(self._best_above, self._best_child)
        going = (value >= best[root] - self._margin) & (self._size[root] < self.node_budget)
        going &= self._all.depth[chosen] < self.max_depth
        self._best_child[done] = -inf
        coming = np.sort(chosen[going]) if time.perf_counter() < self._until else chosen[:0]
        self._waiting += np.bincount(self._root[coming], minlength=self._roots)
        self._go_on_with(np.sort(np.append(self.frontier, coming)))

    def _best_of(self, found: np.ndarray) -> np.ndarray:
        """The children that are kept, by root, each root's the best first."""
        found = found[self._all.log_prob[found] >= self._best_child[self._root[found]] - self._margin]
        of = self.nodes_at(found)
        order = np.lexsort((of.rank, self._turn[of.parent], -of.log_prob, self._root[found]))
        found, root = found[order], self._root[found[order]]
        place = np.arange(len(root)) - np.searchsorted(root, np.arange(self._roots))[root]
        found = found[place < np.minimum(self._per_level, self.node_budget - self._size[root])]
        of = self.nodes_at(found)
        self._turn[found[np.lexsort((of.rank, self._turn[of.parent], self._root[found]))]] = np.arange(len(found))
        return found

    def _leave_behind(self, done: np.ndarray, chosen: np.ndarray) -> None:
        """What these roots' last levels leave of leaves, once the next ones are there."""
        before = np.isin(self._root[self._level], done)
        last = self._level[before]
        leaves = last[~np.isin(last, self._all.parent[chosen])]
        np.maximum.at(self._best_above, self._root[leaves], self._all.log_prob[leaves])
        self._level = np.append(self._level[~before], chosen)

    def _go_on_with(self, frontier: np.ndarray) -> None:
        self.frontier = frontier
        self.place = self.ahead = np.zeros(len(frontier), dtype=np.int64)  # none of them falls out of its tree

    def trees(self) -> GrownTrees:
        """See `Growth.trees`: level by level, of a level the best first."""
        kept = np.flatnonzero(self._kept[self._roots :]) + self._roots
        nodes, root = self.nodes_at(kept), self._root[kept]
        order = np.lexsort((self._turn[kept], -nodes.log_prob, nodes.depth, root))
        return GrownTrees.of(kept[order], self._all, self._root, self._roots, self.node_budget)
