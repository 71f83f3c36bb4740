"""A value with its 95 % interval over prompts: how it is read, written and handed to programs."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from statistics import NormalDist
from typing import Any, NamedTuple

import pandas as pd

NORMAL = NormalDist().inv_cdf(0.975)  # standard deviations that 95 % lie within, either side
FEWEST_PROMPTS = 5  # with fewer there is no interval


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


def columns(values: Mapping[str, Interval], prefix: str = "") -> dict[str, float]:
    """As tables have them: `name`, `name_lo`, `name_hi` of each, with a prefix."""
    return {
        f"{prefix}{name}{end}": bound
        for name, value in values.items()
        for end, bound in zip(("", "_lo", "_hi"), value, strict=True)
    }


def number(value: float, digits: int = 2) -> str:
    """Two decimals, more where they would all be zero; a dash for nothing."""
    if value is None or isnan(value):
        return "–"
    if value and abs(value) < 0.1:
        return f"{value:.2g}" if abs(value) < 0.01 else f"{value:.{digits + 1}f}"
    return f"{value:.{digits}f}"
