"""Sequoia's tree: optimal if acceptance depends on the child rank alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specdraft.trees.optimal import best_tree
from specdraft.trees.ranks import PackedRanks, at_depth, starts
from specdraft.trees.shapes.fitted import FittedShape
from specdraft.trees.topology import Topology


@dataclass
class Sequoia(FittedShape):
    """Sequoia's optimal tree for the share of tokens at each draft rank on the other half of the prompts."""

    kind: str = "sequoia"

    def fit(self, node_budget: int, packed: PackedRanks) -> Topology:
        """See `Shape.fit`."""
        shares = rank_shares(packed, self.max_children)
        tree = best_tree(shares, node_budget, max_depth=self.max_depth, max_children=self.max_children)
        return Topology.from_paths(tree.paths)


def rank_shares(packed: PackedRanks, count: int) -> np.ndarray:
    """`[count]` the share of positions at which the drafter ranked the target's token k-th: Sequoia's vector."""
    rows, positions = starts(packed)
    following = at_depth(packed.ranks, 1)[rows, positions + 1]
    return np.bincount(following[(following >= 0) & (following < count)], minlength=count) / max(len(following), 1)
