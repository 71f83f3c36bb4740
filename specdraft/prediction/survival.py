"""From what is predicted of each node, given that its parent is accepted, to what is predicted of its whole path."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


class Paths:
    """The paths of drafted trees, in the order in which drafters sum along them: level by level.

    Args:
        parent, depth: `[V, N]` see `pruning.Drafted`.
    """

    def __init__(self, parent: np.ndarray, depth: np.ndarray) -> None:
        self._trees, self._nodes = parent.shape[0], parent.shape[1] + 1
        level = depth.ravel()
        self._order = order = np.argsort(level, kind="stable")
        row, place = np.divmod(order, self._nodes - 1) if len(order) else (order, order)
        here, above = row * self._nodes + place + 1, row * self._nodes + parent.ravel()[order]
        ends = np.cumsum(np.bincount(level)).tolist()
        self._levels = [(slice(*some), here[slice(*some)], above[slice(*some)]) for some in pairwise(ends)]

    def cumulative(self, log_prob: np.ndarray) -> np.ndarray:
        """`[V, N]` the logarithms of the products along the paths; `log_prob` `[V, N]` of each node, given its parent,
        at most 0."""
        reached = np.zeros(self._trees * self._nodes)
        own = log_prob.ravel()[self._order]
        for some, here, above in self._levels:
            reached[here] = reached[above] + own[some]
        return reached.reshape(-1, self._nodes)[:, 1:]


def cumulative(parent: np.ndarray, depth: np.ndarray, log_prob: np.ndarray) -> np.ndarray:
    """See `Paths`."""
    return Paths(parent, depth).cumulative(log_prob)
