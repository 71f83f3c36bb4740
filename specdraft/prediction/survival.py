"""From what is predicted of each node, given that its parent is accepted, to what is predicted of its whole path."""

from __future__ import annotations

import numpy as np


def cumulative(parent: np.ndarray, depth: np.ndarray, log_prob: np.ndarray) -> np.ndarray:
    """`[V, N]` the logarithms of the products along the paths, level by level as drafters sum them.

    Args:
        parent, depth: `[V, N]` see `pruning.Drafted`.
        log_prob: `[V, N]` of each node, given its parent; at most 0.
    """
    reached = np.zeros((parent.shape[0], parent.shape[1] + 1))
    for level in range(1, int(depth.max(initial=0)) + 1):
        row, place = np.nonzero(depth == level)
        reached[row, place + 1] = reached[row, parent[row, place]] + log_prob[row, place]
    return reached[:, 1:]
