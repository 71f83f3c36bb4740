"""What is worked out along the paths of many recorded trees at once: nodes `[T, N]` whose parents stand before them."""

from __future__ import annotations

import numpy as np


def depths(parent: np.ndarray) -> np.ndarray:
    """`[T, N]` of each node, from 1; 0 where there is none. A node's parent stands before it."""
    depth = np.where(parent == 0, 1, 0)
    while (deeper := (parent > 0) & (depth == 0) & (above(depth, parent) > 0)).any():
        depth[deeper] = above(depth, parent)[deeper] + 1
    return depth


def above(values: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Each node's parent's value; that of the first node where the parent is the root or nothing."""
    above: np.ndarray = np.take_along_axis(values, np.maximum(parent.astype(np.int64) - 1, 0), 1)
    return above


def along_path(values: np.ndarray, parent: np.ndarray, depth: np.ndarray, join: np.ufunc) -> np.ndarray:
    """`[T, N]` each node's value joined with those of all nodes above it."""
    joined = values.copy()
    for level in range(2, int(depth.max(initial=0)) + 1):
        joined = np.where(depth == level, join(values, above(joined, parent)), joined)
    return joined
