"""From what is predicted of each node, given that its parent is accepted, to what is predicted of its whole path."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def cumulative(parent: np.ndarray, depth: np.ndarray, log_prob: np.ndarray) -> np.ndarray:
    """`[V, N]` the logarithms of the products along the paths, level by level as drafters sum them.

    Args:
        parent, depth: `[V, N]` see `pruning.Drafted`.
        log_prob: `[V, N]` of each node, given its parent; at most 0.
    """
    nodes = parent.shape[1] + 1
    reached = np.zeros(parent.shape[0] * nodes)
    level = depth.ravel()
    order = np.argsort(level, kind="stable")
    ends = np.cumsum(np.bincount(level))
    row, place = np.divmod(order, nodes - 1) if len(order) else (order, order)
    here, above, own = row * nodes + place + 1, row * nodes + parent.ravel()[order], log_prob.ravel()[order]
    for first, end in pairwise(ends.tolist()):
        reached[here[first:end]] = reached[above[first:end]] + own[first:end]
    return reached.reshape(-1, nodes)[:, 1:]
