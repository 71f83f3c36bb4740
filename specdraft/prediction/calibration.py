"""Calibration on top of a predictor: a curve through its log-odds, fitted on prompts that it was not fitted on.

`sequential` is the sequential temperature scaling of DeepSpec (2026) as SGLang fits it: a temperature for each depth in
turn, chosen by the calibration error of survival with those above it fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from specdraft.prediction.features import DEEPEST

TEMPERATURES = np.geomspace(0.1, 10.0, 41)  # of sequential scaling
BINS = 15  # of the calibration error that it minimises


class Judged(NamedTuple):
    """What a predictor said of rows, and what became of them.

    Attributes:
        logits: `[R]` log-odds of conditional acceptance.
        depth: `[R]`; `parent`: `[R]` the row above, -1 below the root.
        reached: `[R]` bool; `accepted`: `[R]`.
    """

    logits: np.ndarray
    depth: np.ndarray
    parent: np.ndarray
    reached: np.ndarray
    accepted: np.ndarray


@dataclass(frozen=True, eq=False)
class Calibration:
    """A curve through log-odds; this one changes nothing."""

    kind: ClassVar[str] = "none"

    @classmethod
    def fit(cls, judged: Judged) -> Self:
        """From rows; those that were not reached say nothing of conditional acceptance."""
        return cls()

    def __call__(self, logits: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Log-odds of the same shape."""
        return logits

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for a file."""
        return {one.name: np.asarray(getattr(self, one.name)) for one in fields(self)}


@dataclass(frozen=True, eq=False)
class TemperatureScaling(Calibration):
    """`logits / temperature` (Guo et al. 2017), by log loss."""

    temperature: float = 1.0
    kind: ClassVar[str] = "temperature"

    @classmethod
    def fit(cls, judged: Judged) -> Self:
        logits, accepted = judged.logits[judged.reached], judged.accepted[judged.reached]
        found = minimize_scalar(
            lambda log_t: log_loss(logits / np.exp(log_t), accepted), bounds=(-3.0, 3.0), method="bounded"
        )
        return cls(float(np.exp(found.x)))

    def __call__(self, logits: np.ndarray, depth: np.ndarray) -> np.ndarray:
        return logits / self.temperature


@dataclass(frozen=True, eq=False)
class Platt(Calibration):
    """`slope * logits + intercept` (Platt 1999), by log loss."""

    slope: float = 1.0
    intercept: float = 0.0
    kind: ClassVar[str] = "platt"

    @classmethod
    def fit(cls, judged: Judged) -> Self:
        logits, accepted = judged.logits[judged.reached], judged.accepted[judged.reached]

        def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
            said = line[0] * logits + line[1]
            wrong = sigmoid(said) - accepted
            return log_loss(said, accepted), np.array([np.mean(wrong * logits), np.mean(wrong)])

        slope, intercept = minimize(loss, [1.0, 0.0], jac=True, method="BFGS").x
        return cls(float(slope), float(intercept))

    def __call__(self, logits: np.ndarray, depth: np.ndarray) -> np.ndarray:
        return self.slope * logits + self.intercept


@dataclass(frozen=True, eq=False)
class Isotonic(Calibration):
    """The best rising curve; linear between its points `[n]`."""

    at: np.ndarray = field(default_factory=lambda: np.zeros(1))
    curve: np.ndarray = field(default_factory=lambda: np.zeros(1))
    kind: ClassVar[str] = "isotonic"

    @classmethod
    def fit(cls, judged: Judged) -> Self:
        from specdraft.prediction.predictors import rising_curve

        return cls(*rising_curve(judged.logits[judged.reached], judged.accepted[judged.reached]))

    def __call__(self, logits: np.ndarray, depth: np.ndarray) -> np.ndarray:
        said: np.ndarray = np.interp(logits, self.at, self.curve)
        return said


@dataclass(frozen=True, eq=False)
class Sequential(Calibration):
    """A temperature for each depth in turn, by the error of survival (see above); `temperatures`: `[DEEPEST]`."""

    temperatures: np.ndarray = field(default_factory=lambda: np.ones(DEEPEST))
    kind: ClassVar[str] = "sequential"

    @classmethod
    def fit(cls, judged: Judged) -> Self:
        survived, found = np.ones(len(judged.logits) + 1), np.ones(DEEPEST)  # the last one is the root's
        for depth in range(DEEPEST):
            here = np.flatnonzero(judged.depth == depth + 1)
            if not len(here):
                continue
            above, logits = survived[judged.parent[here]], judged.logits[here]
            errors = [error(above * sigmoid(logits / t), judged.accepted[here]) for t in TEMPERATURES]
            found[depth] = TEMPERATURES[int(np.argmin(errors))]
            survived[here] = above * sigmoid(logits / found[depth])
        return cls(found)

    def __call__(self, logits: np.ndarray, depth: np.ndarray) -> np.ndarray:
        said: np.ndarray = logits / self.temperatures[np.clip(depth, 1, DEEPEST) - 1]
        return said


def error(predicted: np.ndarray, happened: np.ndarray) -> float:
    """The plug-in expected calibration error over bins of equal width."""
    which = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    return float(np.abs(np.bincount(which, predicted - happened, BINS)).sum() / len(predicted))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """`1 / (1 + exp(-logits))`."""
    value: np.ndarray = 0.5 * (1 + np.tanh(0.5 * logits))
    return value


def log_loss(logits: np.ndarray, accepted: np.ndarray) -> float:
    """Mean of `log(1 + exp(logits)) - accepted * logits`."""
    return float(np.mean(np.logaddexp(0, logits) - accepted * logits))


CALIBRATIONS: dict[str, type[Calibration]] = {
    one.kind: one for one in (Calibration, TemperatureScaling, Platt, Isotonic, Sequential)
}


def of_arrays(kind: str, arrays: dict[str, Any]) -> Calibration:
    """The curve that `Calibration.arrays` came from. Raises `KeyError` or `TypeError` for others."""
    return CALIBRATIONS[kind](**{name: value.item() if value.ndim == 0 else value for name, value in arrays.items()})
