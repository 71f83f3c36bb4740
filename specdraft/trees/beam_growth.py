"""Trees out of a beam: of each level only the best nodes are expanded, under several roots at once."""

from __future__ import annotations

from math import inf

import numpy as np

from specdraft.trees.growth import GrownTrees, Growth


class BeamGrowth(Growth):
    """See `shapes.expand_rerank.ExpandRerank` for the trees, and `Growth` for the rest.

    A level's beam is chosen once all nodes of the level above that are expanded were, in whatever order that was. What
    cannot be in the tree any more is not expanded: its descendants, no better than itself, push nothing out of a beam
    that could be.

    Args:
        roots, node_budget, max_depth, max_children: see `Growth`.
        beam: nodes of a level that are expanded.
    """

    def __init__(self, roots: int, node_budget: int, max_depth: int, max_children: int, beam: int) -> None:
        super().__init__(roots, node_budget, max_depth, max_children, -inf)
        self._width = beam
        self._in_beam = np.ones(roots, dtype=bool)
        self._turn = np.zeros(roots, dtype=np.int64)  # of a node of a beam among these, by rank path
        self._found = np.empty(0, dtype=np.int64)  # of the levels whose beams are not chosen yet

    def add(self, tokens: np.ndarray, log_probs: np.ndarray, some: np.ndarray | None = None) -> None:
        """See `Growth.add`."""
        super().add(tokens, log_probs, some)
        going, new = self.frontier, len(self.newest)
        self._in_beam = np.append(self._in_beam, np.zeros(new, dtype=bool))
        self._turn = np.append(self._turn, np.zeros(new, dtype=np.int64))
        self._found = np.append(self._found, self.newest)
        left = self._root[going[self._in_beam[going]]]
        done = ~np.isin(self._root[self._found], left)
        chosen, self._found = self._best_of(self._found[done]), self._found[~done]
        self._in_beam[chosen] = True
        kept = self._in_beam[going]
        self.frontier, self.place = going[kept], self.place[kept]
        self._count_ahead()

    def _best_of(self, found: np.ndarray) -> np.ndarray:
        """The beams of these nodes, each root's of one level."""
        of = self.nodes_at(found)
        order = np.lexsort((of.rank, self._turn[of.parent], -of.log_prob, self._root[found]))
        root = self._root[found[order]]
        place = np.arange(len(root)) - np.searchsorted(root, root)
        chosen: np.ndarray = found[order][place < self._width]
        of = self.nodes_at(chosen)
        by_path = chosen[np.lexsort((of.rank, self._turn[of.parent], self._root[chosen]))]
        self._turn[by_path] = np.arange(len(chosen))
        return chosen

    def _count_ahead(self) -> None:
        order = np.lexsort((self.place, self._root[self.frontier]))
        root = self._root[self.frontier[order]]
        self.ahead = np.zeros(len(order), dtype=np.int64)
        self.ahead[order] = np.arange(len(root)) - np.searchsorted(root, root)


class BeamSearchGrowth(BeamGrowth):
    """See `shapes.beam_search.BeamSearch` for the trees, and `BeamGrowth` for the rest.

    Args:
        roots, node_budget, max_depth, max_children: see `Growth`.
        beam: candidate sequences.
    """

    def __init__(self, roots: int, node_budget: int, max_depth: int, max_children: int, beam: int) -> None:
        found = max_children + (max_depth - 1) * beam * max_children
        super().__init__(roots, found, max_depth, max_children, beam)
        self._sent = node_budget

    def trees(self) -> GrownTrees:
        """See `Growth.trees`."""
        beams = np.flatnonzero(self._in_beam)
        of, root = self.nodes_at(beams), self._root[beams]
        deepest = np.zeros(self._roots, dtype=np.int64)
        np.maximum.at(deepest, root, of.depth)
        order = np.lexsort((self._turn[beams], -of.log_prob, root))
        ends = beams[order[(of.depth == deepest[root])[order]]]
        paths = [ends]
        for _ in range(1, self.max_depth):
            above = self._all.parent[paths[-1]]
            paths.append(np.where(above < 0, paths[-1], above))  # a root stays
        nodes = np.stack(paths[::-1], 1).ravel()
        nodes = nodes[nodes >= self._roots]
        kept = nodes[np.sort(np.unique(nodes, return_index=True)[1])]
        root = self._root[kept]
        kept = kept[np.arange(len(kept)) - np.searchsorted(root, root) < self._sent]
        return GrownTrees.of(kept, self._all, self._root, self._roots, self._sent)
