"""95 % intervals over prompts."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from specdraft.results.metrics import RATIOS

TERMS = sorted({term for above, below in RATIOS.values() for term in (*above, below)})
BOOTSTRAP_SAMPLES = 2000
FEWEST_TO_RESAMPLE = 8  # prompts in every category; with fewer, resampling within categories covers too little


class Bounds(NamedTuple):
    """The ends of a 95 % interval; NaN where there is none."""

    lo: float
    hi: float


class Ratio(NamedTuple):
    """A ratio of sums over P prompts, and how it varies with them.

    Attributes:
        estimate: the ratio; NaN where the denominator is 0.
        samples: `[samples]` the ratio of each resampling of the prompts (NaN where it has no step), or None with few
            prompts.
        residuals: `[P]` each prompt's numerator less `estimate` times its denominator.
        total: the denominator's sum.
    """

    estimate: float
    samples: np.ndarray | None
    residuals: np.ndarray
    total: float

    @property
    def influence(self) -> np.ndarray:
        """`[P]` how far each prompt moves the ratio."""
        return self.residuals / self.total


def ratio_of_sums(above: np.ndarray, below: np.ndarray, drawn: tuple[np.ndarray, np.ndarray] | None) -> Ratio:
    """`sum(above) / sum(below)`.

    Args:
        above, below: `[P]` numerator and denominator of each prompt.
        drawn: `[samples]` their sums in each resampling of the prompts, or None with few prompts.
    """
    total = float(below.sum())
    if not total > 0:
        return Ratio(np.nan, None, np.zeros_like(above), np.nan)
    estimate, samples = float(above.sum() / total), None
    if drawn is not None:
        samples = np.full_like(drawn[1], np.nan)
        np.divide(*drawn, out=samples, where=drawn[1] > 0)
    return Ratio(estimate, samples, above - estimate * below, total)


def interval(ratio: Ratio) -> Bounds:
    """A ratio's interval, not below 0."""
    low, high = _bounds(ratio.estimate, ratio.samples, ratio.residuals, ratio.total)
    return Bounds(float(np.maximum(0.0, low)), high)


def interval_of_difference(first: Ratio, second: Ratio) -> Bounds:
    """The interval of first minus second, two ratios over the same prompts."""
    samples = None if first.samples is None or second.samples is None else first.samples - second.samples
    return _bounds(first.estimate - second.estimate, samples, first.influence - second.influence)


def _bounds(estimate: float, samples: np.ndarray | None, influence: np.ndarray, scale: float = 1.0) -> Bounds:
    """Percentiles of the samples, or the delta method for a ratio estimate (Cochran 1977, section 6.4), with Student's
    t at one degree of freedom less than there are prompts.

    Args:
        estimate: the middle of the interval; NaN has none, nor has a single prompt.
        samples: `[samples]` of the bootstrap; those that are NaN say nothing.
        influence: `[P]` how far each prompt moves the estimate, times `scale`.
        scale: what to divide by.
    """
    count = len(influence)
    if np.isnan(estimate) or count < 2:
        return Bounds(np.nan, np.nan)
    if samples is not None:
        known = samples[~np.isnan(samples)]
        return Bounds(*map(float, np.quantile(known, [0.025, 0.975]))) if len(known) else Bounds(np.nan, np.nan)
    spread = float(np.sqrt(count / (count - 1) * np.sum(influence**2)) / scale)
    reach = float(stats.t.ppf(0.975, count - 1)) * spread
    return Bounds(estimate - reach, estimate + reach)


def intervals(prompts: pd.DataFrame, resampler: Resampler) -> dict[str, Bounds]:
    """95 % intervals of every ratio of sums over prompts (one row each, with a `category`).

    With at least 8 prompts in every category: the percentile bootstrap, prompts resampled within their
    categories. With fewer: the delta method. One prompt has no interval.
    """
    weights = resampler.weights_if_enough(prompts["category"].astype("category").cat.codes.to_numpy())
    columns = {name: prompts[name].to_numpy(float) for name in TERMS}
    drawn = None if weights is None else dict(zip(TERMS, (weights @ np.stack([*columns.values()], 1)).T, strict=True))
    bounds = {}
    for ratio, (terms, denominator) in RATIOS.items():
        above = np.sum([np.nan_to_num(columns[term]) for term in terms], axis=0)
        sums = None if drawn is None else (np.sum([drawn[term] for term in terms], axis=0), drawn[denominator])
        bounds[ratio] = interval(ratio_of_sums(above, columns[denominator], sums))
    return bounds


class Resampler:
    """Bootstrap weights; groups with the same categories share theirs, so their intervals are comparable."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[bytes, np.ndarray] = {}

    def weights_if_enough(self, codes: np.ndarray) -> np.ndarray | None:
        """`weights`, or None where a category (a code) has too few prompts to resample."""
        enough = len(codes) > 1 and int(np.bincount(codes).min()) >= FEWEST_TO_RESAMPLE
        return self.weights(codes) if enough else None

    def weights(self, codes: np.ndarray) -> np.ndarray:
        """`[samples, prompts]`: the weight of each prompt when its category (a code) is resampled.

        One draw fewer than there are prompts, scaled back to their number (Rao and Wu 1988): n draws of n would
        make the interval too narrow by a factor `sqrt(1 - 1/n)`. A single prompt keeps its weight.
        """
        key = codes.tobytes()
        if key not in self._made:
            rng = np.random.default_rng(self._seed)
            weights = np.zeros((BOOTSTRAP_SAMPLES, len(codes)))
            for code in np.unique(codes):
                members = np.flatnonzero(codes == code)
                count, draws = len(members), max(1, len(members) - 1)
                weights[:, members] = rng.multinomial(draws, np.full(count, 1 / count), BOOTSTRAP_SAMPLES) * (
                    count / draws
                )
            self._made[key] = weights
        return self._made[key]


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
