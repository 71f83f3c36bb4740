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


def intervals(prompts: pd.DataFrame, resampler: Resampler) -> dict[str, tuple[float, float]]:
    """95 % intervals of every ratio of sums over prompts (one row each, with a `category`).

    With at least 8 prompts in every category: the percentile bootstrap, prompts resampled within their
    categories. With fewer: the delta method for a ratio estimate (Cochran 1977, section 6.4), with
    Student's t at one degree of freedom less than there are prompts. One prompt has no interval.
    """
    codes = prompts["category"].astype("category").cat.codes.to_numpy()
    resampled = len(prompts) > 1 and int(np.bincount(codes).min()) >= FEWEST_TO_RESAMPLE
    columns = {name: prompts[name].to_numpy(float) for name in TERMS}
    drawn = (
        dict(zip(TERMS, (resampler.weights(codes) @ np.stack(list(columns.values()), 1)).T, strict=True))
        if resampled
        else {}
    )
    found = {}
    for ratio, (terms, denominator) in RATIOS.items():
        above, below = np.sum([np.nan_to_num(columns[term]) for term in terms], axis=0), columns[denominator]
        if len(prompts) < 2 or not below.sum() > 0:
            found[ratio] = (np.nan, np.nan)
        elif resampled:
            total = drawn[denominator]
            sums = np.sum([drawn[term] for term in terms], axis=0)
            low, high = np.quantile(sums[total > 0] / total[total > 0], [0.025, 0.975])
            found[ratio] = (float(low), float(high))
        else:
            found[ratio] = delta_interval(above, below)
    return found


def delta_interval(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """The delta method's 95 % interval for `sum(above) / sum(below)`, not below 0."""
    count = len(above)
    estimate = above.sum() / below.sum()
    spread = float(np.sqrt(count / (count - 1) * np.sum((above - estimate * below) ** 2)) / below.sum())
    reach = float(stats.t.ppf(0.975, count - 1)) * spread
    return max(0.0, float(estimate) - reach), float(estimate) + reach


class Resampler:
    """Bootstrap weights; groups with the same categories share theirs, so their intervals are comparable."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[bytes, np.ndarray] = {}

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
