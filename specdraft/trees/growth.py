"""Best-first trees that grow under several roots at once."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from specdraft.trees.shapes.base import Growing, NodeScores, SaidChildren


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

    @classmethod
    def of(cls, kept: np.ndarray, all_nodes: Nodes, root: np.ndarray, roots: int, node_budget: int) -> GrownTrees:
        """The trees out of these nodes, by root, each root's in their order.

        Args:
            kept: numbers of nodes.
            all_nodes, root: of every node.
            roots, node_budget: see `Growth`.
        """
        nodes, row = Nodes(*(field[kept] for field in all_nodes)), root[kept]
        turn = np.arange(len(row)) - np.searchsorted(row, np.arange(roots))[row]
        place = np.zeros(len(root), dtype=np.int64)
        place[kept] = turn + 1

        def laid_out(values: np.ndarray, empty: int) -> np.ndarray:
            table = np.full((roots, node_budget), empty, dtype=values.dtype)
            table[row, turn] = values
            return table

        return cls(
            np.bincount(row, minlength=roots),
            laid_out(kept, -1),
            laid_out(place[nodes.parent], -1),
            laid_out(nodes.rank, -1),
            laid_out(nodes.token, -1),
            laid_out(nodes.log_prob, 0),
        )


class Growth:
    """Best-first trees under several roots at once.

    A node that is not among the best `node_budget` known ones can never be again (what is added only pushes it down,
    and a child is never better than its parent), so only the others are expanded, and the trees are exact in whatever
    order that is done. A tree of a smaller budget is a prefix of the larger one's order.

    Among equals the shallower node comes first, then the lower rank path. As long as whole frontiers are expanded,
    nodes are numbered in that order (by depth, and within a depth by root and rank path); after that equals of one
    depth are all kept, until `trees` tells them apart. Numbers 0 .. roots - 1 are the roots: all are expanded first.

    Args:
        roots: how many trees.
        node_budget: draft nodes of each tree at most.
        max_depth, max_children: limits of each tree.
        least: the logarithm of the least cumulative probability.
        top_p: of a node's children only the smallest set of so much probability is considered, the best ones.

    Attributes:
        frontier: nodes of the trees that are still to be expanded, in ascending order.
        place, ahead: `[m]` how many nodes are before each of them in its tree, and how many of these are in the
            frontier too: only their descendants can push it out, so a node with none ahead of it stays.
        newest: the nodes that were found last.
        fed: how many nodes were expanded each time.
    """

    def __init__(
        self,
        roots: int,
        node_budget: int,
        max_depth: int,
        max_children: int,
        least: float = -inf,
        top_p: float = 1.0,
    ) -> None:
        self.node_budget, self.max_depth, self.max_children = node_budget, max_depth, max_children
        self._top_p, self._least, self._roots = top_p, least, roots
        none, zero = np.full(roots, -1), np.zeros(roots, dtype=np.int64)
        self._all = Nodes(none, zero, none, zero, np.zeros(roots))
        self._root = np.arange(roots)
        self._expanded = np.zeros(roots, dtype=bool)
        self._kept = np.empty(0, dtype=np.int64)  # the best nodes so far, by root, each root's in their order
        self._numbered = True  # in the order of equals
        self._to_beat = np.full(roots, -inf), zero  # value and depth of each full tree's last node
        self.newest, self.frontier, self.place, self.ahead = none[:0], np.arange(roots), zero, zero
        self.fed: list[int] = []

    def nodes_at(self, numbers: np.ndarray) -> Nodes:
        """These nodes."""
        return Nodes(*(field[numbers] for field in self._all))

    def add(self, tokens: np.ndarray, log_probs: np.ndarray, some: np.ndarray | None = None) -> None:
        """Children `[m, max_children]`, the most probable first, of the frontier, or of some of its nodes in ascending
        order; the next frontier follows."""
        expanded = self.frontier if some is None else some
        self.fed.append(len(expanded))
        self._numbered &= len(expanded) == len(self.frontier)
        self._expanded[expanded] = True
        above, root = self.nodes_at(expanded), self._root[expanded]
        reached = above.log_prob[:, None] + self._considered(log_probs)
        row, rank = np.nonzero(self._good_enough(reached, root, above.depth + 1))
        first, count = len(self._root), len(row)
        children = Nodes(expanded[row], rank, tokens[row, rank], above.depth[row] + 1, reached[row, rank])
        self._all = Nodes(*(np.concatenate(pair) for pair in zip(self._all, children, strict=True)))
        self._root = np.concatenate([self._root, root[row]])
        self._expanded = np.concatenate([self._expanded, np.zeros(count, dtype=bool)])
        self.newest = np.arange(first, first + count)
        self._keep_best(np.concatenate([self._kept, self.newest]))

    def _considered(self, log_probs: np.ndarray) -> np.ndarray:
        if self._top_p == 1:
            return log_probs
        better = np.cumsum(np.exp(log_probs[:, :-1]), axis=1)  # what is held by the siblings before
        return np.append(log_probs[:, :1], np.where(better < self._top_p, log_probs[:, 1:], -inf), axis=1)

    def _good_enough(self, reached: np.ndarray, root: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """`[m, K]` which children of these depths `[m]` may be in a tree."""
        value, deepest = (field[root][:, None] for field in self._to_beat)
        beats: np.ndarray = reached > value
        if not self._numbered:
            beats |= (reached == value) & (depth[:, None] <= deepest)
        return beats & (reached >= self._least) & (reached > -inf)

    def _keep_best(self, numbers: np.ndarray) -> None:
        root, depth, value = self._root[numbers], self._all.depth[numbers], self._all.log_prob[numbers]
        order = _by_root(root, value, depth)
        numbers, root, depth, value = numbers[order], root[order], depth[order], value[order]
        first = np.searchsorted(root, np.arange(self._roots + 1))
        place, full = np.arange(len(numbers)) - first[root], np.diff(first) >= self.node_budget
        last = first[:-1][full] + self.node_budget - 1
        to_beat = np.full(self._roots, -inf), np.zeros(self._roots, dtype=np.int64)
        to_beat[0][full], to_beat[1][full] = value[last], depth[last]
        kept = place < self.node_budget
        if not self._numbered:
            kept |= (value == to_beat[0][root]) & (depth == to_beat[1][root])
        self._to_beat, self._kept = to_beat, numbers[kept]
        going = kept & ~self._expanded[numbers] & (depth < self.max_depth) & (value > to_beat[0][root])
        numbers, root, place = numbers[going], root[going], place[going]
        ahead = np.arange(len(root)) - np.searchsorted(root, np.arange(self._roots))[root]
        by_number = np.argsort(numbers)
        self.frontier, self.place, self.ahead = numbers[by_number], place[by_number], ahead[by_number]

    def _in_order(self) -> np.ndarray:
        """The nodes of the trees, by root, each root's in their order."""
        if self._numbered:
            return self._kept
        turn = np.arange(len(self._root))  # among the nodes of one depth
        kept = self.nodes_at(self._kept)
        for depth in range(1, int(kept.depth.max(initial=0)) + 1):
            here = self._kept[kept.depth == depth]
            level = self.nodes_at(here)
            turn[here[np.lexsort((level.rank, turn[level.parent]))]] = np.arange(len(here))
        root = self._root[self._kept]
        order = np.lexsort((turn[self._kept], kept.depth, -kept.log_prob, root))
        first = np.searchsorted(root, np.arange(self._roots))
        return self._kept[order][np.arange(len(order)) - first[root] < self.node_budget]

    def trees(self) -> GrownTrees:
        """Every root's tree."""
        kept = self._in_order()
        return GrownTrees.of(kept, self._all, self._root, self._roots, self.node_budget)


def _by_root(root: np.ndarray, value: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The order by root, the largest value first, then the least depth; stable. Short integers sort in linear time."""
    order = np.argsort(depth.astype(np.int16), kind="stable")
    order = order[np.argsort(-value[order], kind="stable")]
    short = np.int16 if len(root) and root.max() < np.iinfo(np.int16).max else np.int64
    return order[np.argsort(root[order].astype(short), kind="stable")]


def add_scored(growth: Growing, scores: NodeScores, said: SaidChildren, some: np.ndarray | None = None) -> None:
    """As `Growth.add`, with what drafters say of the children scored by something else than their probabilities."""
    expanded = growth.frontier if some is None else some
    growth.add(said.tokens, scores.children(expanded, said), expanded)
    nodes = growth.nodes_at(growth.newest)
    scores.keep(np.searchsorted(expanded, nodes.parent), nodes.rank)
