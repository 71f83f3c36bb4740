"""Acceptance learnt while decoding: a logistic curve with one slope, and an intercept for each depth.

As vLLM's `OnlineAcceptanceEstimator`, on the nodes of a tree instead of the places of a chain: damped Newton steps of
logistic regression (iteratively reweighted least squares), whose normal equations have the form of an arrow.
"""

from __future__ import annotations

import numpy as np

MOST_ODDS = 40.0  # log-odds beyond this are no different
RIDGE = 1e-3
DAMPING = 50.0  # n observations count as n / (n + 50) of a step


class OnlineAcceptance:
    """P(a node is accepted | its parent is), from the log-odds of the score that it has.

    It begins with what the scores say: slope 1, intercepts 0. Whoever decodes makes a new one for each prompt.

    Attributes:
        slope: 0 or more.
        intercepts: `[D]` of each depth, from 1.
    """

    def __init__(self) -> None:
        self.slope, self.intercepts = 1.0, np.zeros(0)
        self._odds, self._depth, self._accepted = np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0)

    def log_conditional(self, log_prob: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Logarithms of P(accepted | parent accepted), of the shape of both.

        Args:
            log_prob: the logarithm of the score of each node, given its parent.
            depth: of the nodes; 0: no node.
        """
        self._reach(depth)
        return _log_sigmoid(self.slope * log_odds(log_prob) + np.append(0.0, self.intercepts)[depth])

    def learn(self, log_prob: np.ndarray, depth: np.ndarray, accepted: np.ndarray) -> None:
        """What became of nodes `[m]` whose parents were accepted; one damped step on all that is known by now."""
        self._reach(depth)
        self._odds = np.append(self._odds, log_odds(log_prob))
        self._depth, self._accepted = np.append(self._depth, depth), np.append(self._accepted, accepted)
        if len(self._odds):
            self._step()

    def _reach(self, depth: np.ndarray) -> None:
        deeper = int(depth.max(initial=0)) - len(self.intercepts)
        self.intercepts = np.append(self.intercepts, np.zeros(max(deeper, 0)))

    def _step(self) -> None:
        level, count = self._depth - 1, len(self.intercepts)
        said = 1 / (1 + np.exp(-(self.slope * self._odds + self.intercepts[level])))
        missed, weight = self._accepted - said, said * (1 - said)

        def by_depth(values: np.ndarray) -> np.ndarray:
            return np.bincount(level, weights=values, minlength=count)

        pull, shaft = by_depth(missed), by_depth(weight * self._odds)
        own = by_depth(weight) + RIDGE
        head = (weight * self._odds**2).sum() + RIDGE
        turn = ((missed * self._odds).sum() - (shaft * pull / own).sum()) / (head - (shaft**2 / own).sum())
        seen = np.bincount(level, minlength=count)
        self.intercepts = self.intercepts + (pull - shaft * turn) / own * seen / (seen + DAMPING)
        self.slope = max(0.0, self.slope + turn * len(level) / (len(level) + DAMPING))


def log_odds(log_prob: np.ndarray) -> np.ndarray:
    """`log(p / (1 - p))` of `log p`, within what is different."""
    with np.errstate(divide="ignore"):
        odds = log_prob - np.log(-np.expm1(log_prob))
    bounded: np.ndarray = np.clip(odds, -MOST_ODDS, MOST_ODDS)
    return bounded


def _log_sigmoid(odds: np.ndarray) -> np.ndarray:
    values: np.ndarray = -np.logaddexp(0, -odds)
    return values
