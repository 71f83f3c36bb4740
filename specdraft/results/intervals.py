"""95 % intervals over prompts."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from specdraft.results.metrics import RATIOS, possible

TERMS = sorted({term for above, below in RATIOS.values() for term in (*above, below)})
FEWEST_PROMPTS = 5  # with fewer there is no interval
BOOTSTRAP_SAMPLES = 999
LEVEL = 0.95
CATEGORIES_DIFFER = 0.9  # level of the F test beyond which categories are told apart
WIDEST = (
    4.0  # Student's quantile at most so many times: of few prompts with steps to spare, a resample can be all alike
)
ROUNDING = 1e-5  # of the resamples' sums, which are in single precision
ALIKE = 1e-9  # prompts that differ by less, relative to the value, are all alike


class Bounds(NamedTuple):
    """The ends of a 95 % interval; NaN where there is none."""

    lo: float
    hi: float


NONE = Bounds(np.nan, np.nan)


class Ratio(NamedTuple):
    """A ratio of sums over P prompts, and how it varies with them.

    Attributes:
        estimate: the ratio; NaN where the denominator is 0.
        residuals: `[P]` each prompt's numerator less `estimate` times its denominator.
        below: `[P]` each prompt's denominator.
    """

    estimate: float
    residuals: np.ndarray
    below: np.ndarray

    @property
    def influence(self) -> np.ndarray:
        """`[P]` how far each prompt moves the ratio."""
        moves: np.ndarray = self.residuals / self.below.sum()
        return moves


def ratio_of_sums(above: np.ndarray, below: np.ndarray) -> Ratio:
    """`sum(above) / sum(below)`, of `[P]` numerators and denominators."""
    total = float(below.sum())
    if not total > 0:
        return Ratio(np.nan, np.zeros_like(below), below)
    estimate = float(above.sum() / total)
    return Ratio(estimate, above - estimate * below, below)


class Prompts(NamedTuple):
    """What intervals are over.

    Attributes:
        codes: `[P]` each prompt's category, as a number.
        resampler: of the prompts.
    """

    codes: np.ndarray
    resampler: Resampler

    def interval(self, ratio: Ratio, possible: tuple[float, float] = (0.0, np.inf)) -> Bounds:
        """A ratio's interval, within what is possible; prompts without a step say nothing."""
        there = ratio.below > 0
        if np.isnan(ratio.estimate) or there.sum() < FEWEST_PROMPTS:
            return NONE
        reach = self._reach(ratio.influence[there], ratio.below[there], there, abs(ratio.estimate))
        return _within(ratio.estimate, reach, possible)

    def interval_of_difference(
        self, first: Ratio, second: Ratio, possible: tuple[float, float] = (-np.inf, np.inf)
    ) -> Bounds:
        """The interval of first minus second, two ratios over the same prompts, linearised: what is skewed in both
        cancels. Equal on every prompt: from 0 to 0."""
        difference = first.estimate - second.estimate
        there = (first.below > 0) | (second.below > 0)
        if np.isnan(difference) or there.sum() < FEWEST_PROMPTS:
            return NONE
        influence = (first.influence - second.influence)[there]
        if difference == 0 and not influence.any():
            return Bounds(0.0, 0.0)
        scale = max(abs(first.estimate), abs(second.estimate))
        return _within(difference, self._reach(influence, np.ones_like(influence), there, scale), possible)

    def _reach(self, influence: np.ndarray, below: np.ndarray, there: np.ndarray, scale: float) -> float:
        """Half the width of a symmetric bootstrap-t interval (Hall 1992, section 3.6), never less than Student's.

        A resample draws as many of the centred prompts as there are; how far it moves the ratio is measured in its own
        standard errors, and the 95 % quantile of that, in the data's, is the reach. NaN where all prompts are alike.

        Args:
            influence: `[P]` how far each prompt moves the estimate; their sum is 0.
            below: `[P]` its weight in the denominator.
            there: which of all prompts these are.
            scale: of the value that varies.
        """
        count, (influence, freedom) = len(influence), centred(influence, self.codes[there])
        length = float(np.sqrt(influence @ influence))
        if length <= ALIKE * scale:
            return np.nan
        student = students(count - 1)
        quantile = studentised(influence / length, below / below.sum(), self.resampler.weights(count))
        widened = min(max(quantile, student), WIDEST * student) * students(freedom) / student
        return widened * length * float(np.sqrt(count / freedom))


def studentised(moves: np.ndarray, share: np.ndarray, weights: np.ndarray) -> float:
    """The 95 % quantile, over resamples, of how many of its own standard errors a resample moves the ratio.

    Args:
        moves: `[P]` how far each prompt moves it, their sum 0 and their squares' sum 1.
        share: `[P]` of the denominator.
        weights: `[samples, P]` see `Resampler.weights`.
    """
    terms = np.stack([moves, share, moves**2, moves * share, share**2]).astype(weights.dtype)
    moved, size, squares, mixed, sizes = terms @ weights.T
    moved /= size
    spread = (squares - 2 * moved * mixed + moved**2 * sizes) / size**2 * len(moves) / (len(moves) - 1)
    alike = spread <= ROUNDING
    far = np.abs(moved) / np.sqrt(np.where(alike, 1, spread))
    far[alike & (np.abs(moved) > ROUNDING)] = np.inf
    place = round(LEVEL * (len(far) + 1)) - 1
    return float(np.partition(far, place)[place])


def centred(influence: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, float]:
    """Influence within categories, and the degrees of freedom that are left.

    Prompts are stratified: what differs between categories is no error. Of a few prompts per category that is known
    badly, so the categories' means are shrunk towards 0 by `1 - c / F`: F is the ratio of mean squares between and
    within categories and c what F exceeds by chance in one case of ten.
    """
    _, codes, counts = np.unique(codes, return_inverse=True, return_counts=True)
    prompts, categories = len(codes), len(counts)
    if categories == 1 or prompts - categories < 3:
        return influence, prompts - 1
    means = (np.bincount(codes, influence) / counts)[codes]
    between = float(means @ means) / (categories - 1)
    within = float(np.sum((influence - means) ** 2)) / (prompts - categories)
    chance = float(special.fdtri(categories - 1, prompts - categories, CATEGORIES_DIFFER))
    kept = max(0.0, 1 - chance * within / between) if between > 0 else 0.0
    return influence - kept * means, prompts - 1 - kept * (categories - 1)


def students(freedom: float) -> float:
    """Student's t that 95 % lie within, either side of 0."""
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2))


def _within(value: float, reach: float, possible: tuple[float, float]) -> Bounds:
    """`value` give or take `reach`, cut to what is possible."""
    if np.isnan(reach):
        return NONE
    lowest, highest = min(possible[0], value), max(possible[1], value)
    return Bounds(max(value - reach, lowest), min(value + reach, highest))


def intervals(prompts: pd.DataFrame, resampler: Resampler, depth: float = np.inf) -> dict[str, Bounds]:
    """95 % intervals of every ratio of sums over prompts (one row each, with a `category`) of trees of this depth."""
    over = Prompts(prompts["category"].astype("category").cat.codes.to_numpy(), resampler)
    columns = {name: prompts[name].to_numpy(float) for name in TERMS}
    bounds = {}
    for ratio, (terms, denominator) in RATIOS.items():
        above = np.sum([np.nan_to_num(columns[term]) for term in terms], axis=0)
        bounds[ratio] = over.interval(ratio_of_sums(above, columns[denominator]), possible(ratio, depth))
    return bounds


class Resampler:
    """Bootstrap weights; equally many prompts share theirs, so that their intervals are comparable."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[int, np.ndarray] = {}

    def weights(self, prompts: int) -> np.ndarray:
        """`[samples, prompts]`: how often each prompt is drawn, in as many draws as there are prompts."""
        if prompts not in self._made:
            rng = np.random.default_rng(self._seed)
            draws = rng.multinomial(prompts, np.full(prompts, 1 / prompts), BOOTSTRAP_SAMPLES)
            self._made[prompts] = np.ascontiguousarray(draws.T, dtype=np.float32).T
        return self._made[prompts]


class Interval(NamedTuple):
    """A value with its 95 % interval over prompts; bounds are NaN where there is none."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, row: Mapping[Any, Any] | pd.Series[Any], name: str) -> Interval:
        """A ratio of a summary row with its bounds."""
        return cls(float(row[name]), float(row[f"{name}_lo"]), float(row[f"{name}_hi"]))

    @property
    def known(self) -> bool:
        """There is an interval."""
        return not (isnan(self.low) or isnan(self.high))

    def __str__(self) -> str:
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]" if self.known else number(self.value)

    def __format__(self, spec: str) -> str:
        """`f"{interval:.3f}"` writes value and bounds alike."""
        if not spec:
            return str(self)
        value = format(self.value, spec)
        return f"{value} [{format(self.low, spec)}, {format(self.high, spec)}]" if self.known else value

    def as_dict(self) -> dict[str, float | None]:
        """For programs: `value`, `lo` and `hi`; None where there is no interval, as JSON has no NaN."""
        lo, hi = (None if isnan(bound) else bound for bound in (self.low, self.high))
        return {"value": self.value, "lo": lo, "hi": hi}


def number(value: float, digits: int = 2) -> str:
    """Two decimals, more where they would all be zero; a dash for nothing."""
    if value is None or isnan(value):
        return "–"
    if value and abs(value) < 0.1:
        return f"{value:.2g}" if abs(value) < 0.01 else f"{value:.{digits + 1}f}"
    return f"{value:.{digits}f}"
