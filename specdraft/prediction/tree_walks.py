"""What is worked out along the paths of many recorded trees at once: nodes `[T, N]` whose parents stand before them."""

from __future__ import annotations

import numpy as np


def above(values: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Each node's parent's value; that of the first node where the parent is the root or nothing."""
    found: np.ndarray = np.take_along_axis(values, np.maximum(parent.astype(np.int64) - 1, 0), 1)
    return found


def along_path(values: np.ndarray, parent: np.ndarray, join: np.ufunc) -> np.ndarray:
    """`[T, N]` each node's value joined with those of all nodes above it.

    Every node looks at the one above, then two above, then four: a path of 8 takes three rounds.
    """
    trees, nodes = parent.shape
    root = np.arange(trees)[:, None] * (nodes + 1)  # a place for each tree's root, which changes nothing
    joined = np.full((trees, nodes + 1), join.identity, dtype=values.dtype)
    joined[:, 1:] = values
    step = np.zeros(joined.shape, dtype=np.int64)
    np.maximum(parent, 0, out=step[:, 1:])
    step += root
    while (step > root).any():
        joined = join(joined, joined.ravel()[step])
        step = step.ravel()[step]
    return joined[:, 1:]


def depths(parent: np.ndarray) -> np.ndarray:
    """`[T, N]` of each node, from 1; 0 where there is none."""
    return along_path((parent >= 0).astype(np.int64), parent, np.add)
