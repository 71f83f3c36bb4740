"""Sequoia's tree: optimal if acceptance depends on the child rank alone, or on depth and child rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specdraft.trees.optimal import best_tree
from specdraft.trees.ranks import PackedRanks, at_depth, starts
from specdraft.trees.shapes.fitted import FittedShape
from specdraft.trees.topology import Topology


@dataclass
class Sequoia(FittedShape):
    """Sequoia's optimal tree for the share of tokens at each draft rank on the other half of the prompts.

    Of a drafter that proposes by distance from the root (Medusa's heads): for the shares at each depth.
    """

    kind: str = "sequoia"

    def fit(self, node_budget: int, packed: PackedRanks) -> Topology:
        """See `Shape.fit`."""
        levels = self.levels(packed)
        acceptance = self._acceptance(packed, levels)
        tree = best_tree(acceptance, node_budget, max_depth=levels, max_children=self.max_children)
        return Topology.from_paths(tree.paths)

    def _acceptance(self, packed: PackedRanks, levels: int) -> np.ndarray:
        """`[K]`, or `[D, K]` where depths differ."""
        if packed.levels is None:
            return rank_shares(packed, self.max_children)
        return np.stack([rank_shares(packed, self.max_children, depth) for depth in range(1, levels + 1)])


def rank_shares(packed: PackedRanks, count: int, depth: int = 1) -> np.ndarray:
    """`[count]` the share of starts after which the drafter ranked the target's token at this depth k-th: Sequoia's
    vector."""
    rows, positions = starts(packed)
    there = positions + depth <= packed.last[rows]
    following = at_depth(packed.ranks, depth)[rows[there], positions[there] + depth]
    return np.bincount(following[(following >= 0) & (following < count)], minlength=count) / max(len(following), 1)
