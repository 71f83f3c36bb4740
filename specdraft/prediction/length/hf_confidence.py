"""`transformers`' confidence criterion: drafting ends after a token that the drafter is not sure of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specdraft.config import label
from specdraft.errors import ConfigError, did_you_mean
from specdraft.prediction.length.base import LengthPolicy, Lengths, Said, check_share
from specdraft.prediction.length.constant import Always
from specdraft.prediction.length.hf_heuristic import Heuristic

SCHEDULES = ("constant", "heuristic")
LEAST_LABELLED = 5  # tokens; with more of them, of both kinds, the threshold is chosen anew
FALSE_NEGATIVE = 3.0  # what ending before a token that would be accepted costs, in false positives


class Confidence(Lengths):
    """`ConfidenceCriteria` (`generation/stopping_criteria.py`); the unsure token is sent too.

    Args:
        most: what says the most tokens of a chain.
        threshold: of the first step.
        adapts: choose it anew after each step.
    """

    def __init__(self, most: Lengths, threshold: float, adapts: bool) -> None:
        self._most, self._threshold, self._adapts = most, threshold, adapts and threshold > 0
        self._probs: list[float] = []
        self._matches: list[bool] = []

    def next(self) -> int:
        """See `Lengths.next`."""
        return self._most.next()

    def ends(self, said: Said) -> np.ndarray:
        """See `Lengths.ends`."""
        unsure: np.ndarray = said.probs < self._threshold
        return unsure

    def observe(self, accepted: int, said: Said) -> None:
        """See `Lengths.observe`."""
        self._most.observe(accepted, said)
        if not self._adapts:
            return
        labelled = said.probs[: accepted + 1]  # what follows the first rejected token was not judged
        self._probs += labelled.tolist()
        self._matches += [place < accepted for place in range(len(labelled))]
        if len(self._probs) > LEAST_LABELLED and len(set(self._matches)) == 2:
            self._threshold = best_threshold(np.array(self._matches), np.array(self._probs))


def best_threshold(matches: np.ndarray, probs: np.ndarray) -> float:
    """The probability from which on a token counts as sure, chosen by the ROC curve of tokens `[n]` that were judged:
    the least `false positive rate + 3 * false negative rate`, of equals the largest threshold.

    `transformers` does so where scikit-learn is installed (`update_candidate_strategy`).
    """
    order = np.argsort(-probs, kind="stable")
    ordered, matched = probs[order], matches[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of equal probabilities
    true = np.cumsum(matched)[last]
    false = last + 1 - true
    cost = false / false[-1] + FALSE_NEGATIVE * (1 - true / true[-1])
    return float(ordered[last[cost.argmin()]])


@dataclass
class HfConfidence(LengthPolicy):
    """Drafting ends after the first token whose probability is below `threshold`.

    Attributes:
        threshold: `assistant_confidence_threshold`.
        adapt: the threshold is chosen anew after each step, from the text's tokens so far, as `transformers` does where
            scikit-learn is installed.
        schedule: of the most tokens: `constant` (the budget), or `heuristic` (see `HfHeuristic`).
        initial: the first length of the heuristic.
    """

    kind: str = "hf_confidence"
    threshold: float = 0.4
    adapt: bool = False
    schedule: str = "constant"
    initial: int = 5
    watches = True

    @property
    def adapts(self) -> bool:
        """See `LengthPolicy.adapts`."""
        return self.adapt or self.schedule == "heuristic"

    @property
    def label(self) -> str:
        """See `LengthPolicy.label`: `hf_confidence-adapt`."""
        return label(self, "adapt") + ("-adapt" if self.adapt else "")

    def begin(self, budget: int, step_s: np.ndarray | None = None) -> Lengths:
        """See `LengthPolicy.begin`."""
        most = Always(budget) if self.schedule == "constant" else Heuristic(self.initial, budget)
        return Confidence(most, self.threshold, self.adapt)

    def check(self) -> None:
        """See `LengthPolicy.check`."""
        check_share(self, "threshold")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"length.schedule={self.schedule} is not known{did_you_mean(self.schedule, SCHEDULES)}")
        if self.initial < 1:
            raise self.refuse("initial", "1 or more")
        if self.initial != HfConfidence.initial and self.schedule == "constant":
            raise ConfigError(
                f"length.initial={self.initial} has no effect with length.schedule=constant; it goes with "
                "length.schedule=heuristic"
            )
