"""Best-first trees that grow level by level, under several roots at once."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from specdraft.trees.shapes.base import LevelScores, SaidChildren


class Nodes(NamedTuple):
    """Nodes of a growth, side by side.

    Attributes:
        parent: `[k]` the node above (a root's is -1).
        rank, token, depth: `[k]` (a root's token is -1).
        log_prob: `[k]` float64, the logarithm of the cumulative probability.
    """

    parent: np.ndarray
    rank: np.ndarray
    token: np.ndarray
    depth: np.ndarray
    log_prob: np.ndarray


class GrownTrees(NamedTuple):
    """Finished trees, each with its nodes in the order in which a growing budget adds them.

    Attributes:
        sizes: `[roots]` draft nodes of each tree; what follows is `[roots, node_budget]`, -1 or 0 beyond the size.
        nodes: the nodes' numbers in the growth.
        parent: places in this order, from 1; 0 is the root, -1 no node.
        rank, token: of the nodes.
        log_prob: see `Nodes`.
    """

    sizes: np.ndarray
    nodes: np.ndarray
    parent: np.ndarray
    rank: np.ndarray
    token: np.ndarray
    log_prob: np.ndarray


class Growth:
    """Best-first trees under several roots at once, level by level.

    After a level, a node that is not among the best `node_budget` known ones can never be again (what
    is added only pushes it down, and a child is never better than its parent), so only the others are
    expanded, and the trees are exact. A tree of a smaller budget is a prefix of the larger one's order.

    Nodes are numbered as they are found: by depth, and within a depth by root and rank path. So among
    equals the lower number comes first. Numbers 0 .. roots - 1 are the roots.

    Args:
        roots: how many trees.
        node_budget: draft nodes of each tree at most.
        max_depth, max_children: limits of each tree.
        least: the logarithm of the least cumulative probability, of every tree or `[roots]` of each.
        top_p: of a node's children only the smallest set of so much probability is considered, the best ones.

    Attributes:
        frontier: nodes whose children are wanted next.
        fed: how many nodes were expanded for each level so far.
    """

    def __init__(
        self,
        roots: int,
        node_budget: int,
        max_depth: int,
        max_children: int,
        least: float | np.ndarray = -inf,
        top_p: float = 1.0,
    ) -> None:
        self.node_budget, self.max_depth, self.max_children = node_budget, max_depth, max_children
        self._top_p = top_p
        self._least = np.broadcast_to(np.asarray(least), roots)
        self._seen: list[tuple[np.ndarray, np.ndarray]] = []  # roots and values of all nodes, kept or not
        none, zero = np.full(roots, -1), np.zeros(roots, dtype=np.int64)
        self._all = Nodes(none, zero, none, zero, np.zeros(roots))
        self._root = np.arange(roots)
        self._kept = np.empty(0, dtype=np.int64)  # the best nodes so far, by root, each root's in their order
        self._depth = 0
        self._roots = roots
        self.frontier = np.arange(roots)
        self.fed: list[int] = []

    def nodes_at(self, numbers: np.ndarray) -> Nodes:
        """These nodes."""
        return Nodes(*(field[numbers] for field in self._all))

    def add(self, tokens: np.ndarray, log_probs: np.ndarray) -> None:
        """The frontier's children: `[m, max_children]`, the most probable first; the next frontier follows."""
        self._depth += 1
        self.fed.append(len(self.frontier))
        above = self.nodes_at(self.frontier)
        if self._top_p < 1:
            better = np.cumsum(np.exp(log_probs[:, :-1]), axis=1)  # what is held by the siblings before
            log_probs = np.append(log_probs[:, :1], np.where(better < self._top_p, log_probs[:, 1:], -inf), axis=1)
        reached = above.log_prob[:, None] + log_probs
        root = self._root[self.frontier]
        self._seen.append((np.repeat(root, reached.shape[1]), reached.reshape(-1)))
        enough = (reached >= self._least[root][:, None]) & (reached > self._to_beat()[root][:, None])
        row, rank = np.nonzero(enough & (reached > -inf))
        first, count = len(self._root), len(row)
        depth = np.full(count, self._depth)
        children = Nodes(self.frontier[row], rank, tokens[row, rank], depth, reached[row, rank])
        self._all = Nodes(*(np.concatenate(pair) for pair in zip(self._all, children, strict=True)))
        self._root = np.concatenate([self._root, root[row]])
        self._keep_best(np.concatenate([self._kept, np.arange(first, first + count)]))
        newest = np.sort(self._kept[self._kept >= first])
        self.frontier = newest if self._depth < self.max_depth else newest[:0]

    def best(self, count: int) -> np.ndarray:
        """`[roots]` the `count`-th best value that was seen: no node of a tree of so many nodes is worth less.

        -inf where fewer were seen.
        """
        root, value = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
        order = np.lexsort((-value, root))
        place = np.searchsorted(root[order], np.arange(self._roots)) + count - 1
        there = np.bincount(root, minlength=self._roots) >= count
        worst = np.full(self._roots, -inf)
        worst[there] = value[order][place[there]]
        return worst

    def _to_beat(self) -> np.ndarray:
        """`[roots]` what a new node must exceed: the last kept node's value where a tree is full."""
        beat = np.full(self._roots, -inf)
        counts = np.bincount(self._root[self._kept], minlength=self._roots)
        full = counts == self.node_budget
        beat[full] = self._all.log_prob[self._kept[np.cumsum(counts)[full] - 1]]
        return beat

    def _keep_best(self, numbers: np.ndarray) -> None:
        root = self._root[numbers]
        order = np.lexsort((numbers, -self._all.log_prob[numbers], root))
        numbers, root = numbers[order], root[order]
        first = np.searchsorted(root, np.arange(self._roots))
        self._kept = numbers[np.arange(len(numbers)) - first[root] < self.node_budget]

    def trees(self) -> GrownTrees:
        """Every root's tree."""
        nodes, root = self.nodes_at(self._kept), self._root[self._kept]
        sizes = np.bincount(root, minlength=self._roots)
        turn = np.arange(len(root)) - np.searchsorted(root, np.arange(self._roots))[root]
        place = np.zeros(len(self._root), dtype=np.int64)
        place[self._kept] = turn + 1

        def laid_out(values: np.ndarray, empty: int) -> np.ndarray:
            table = np.full((self._roots, self.node_budget), empty, dtype=values.dtype)
            table[root, turn] = values
            return table

        parent = laid_out(place[nodes.parent], -1)
        return GrownTrees(
            sizes,
            laid_out(self._kept, -1),
            parent,
            laid_out(nodes.rank, -1),
            laid_out(nodes.token, -1),
            laid_out(nodes.log_prob, 0),
        )


def add_scored(growth: Growth, levels: LevelScores, said: SaidChildren) -> None:
    """As `Growth.add`, with what drafters say of the children scored by something else than their probabilities."""
    before = growth.frontier
    growth.add(said.tokens, levels.children(said))
    nodes = growth.nodes_at(growth.frontier)
    levels.keep(np.searchsorted(before, nodes.parent), nodes.rank)
