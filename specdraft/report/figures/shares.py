"""Intervals of shares of steps whose prompts are not recorded: Wilson's, over as many steps as they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from specdraft.results.intervals import NORMAL

NOTE = (
    "Bars: 95 % intervals (Wilson 1927). Steps of one prompt are alike, so a step counts for less than one: by how "
    "much is told by the interval over prompts of the accepted tokens per step (design effect, Kish 1965)."
)
UNKNOWN = "No intervals: none are recorded of the accepted tokens per step."


def design_effects(rows: pd.DataFrame, lengths: pd.DataFrame | None) -> pd.Series[float]:
    """Combination -> how many steps say as much as one would if all were independent: the variance of the accepted
    tokens per step over prompts, relative to the one over independent steps; at least 1, NaN where it is not known.

    Args:
        rows: of a summary.
        lengths: `lengths.csv`.
    """
    reach = (rows["acceptance_length_hi"] - rows["acceptance_length_lo"]) / 2
    over_prompts = (reach / NORMAL).to_numpy(float) ** 2
    if lengths is None:
        return pd.Series(np.nan, pd.Index(rows["combination"]))
    moments = lengths.assign(
        first=lengths["steps"] * lengths["acceptance_length"],
        second=lengths["steps"] * lengths["acceptance_length"] ** 2,
    )
    sums = moments.groupby("combination")[["steps", "first", "second"]].sum().reindex(rows["combination"])
    over_steps = (sums["second"] / sums["steps"] - (sums["first"] / sums["steps"]) ** 2) / sums["steps"]
    effects = over_prompts / over_steps.where(over_steps > 0).to_numpy(float)
    return pd.Series(np.maximum(effects, 1), sums.index)


def with_intervals(table: pd.DataFrame, rate: str, of: str) -> pd.DataFrame:
    """A table with `low` and `high` of a share.

    Args:
        table: has `effect`, the design effect of each row's combination.
        rate: the share's column.
        of: the column of the steps that it is a share of.
    """
    share, worth = table[rate].to_numpy(float), (table[of] / table["effect"]).to_numpy(float)
    middle = (share + NORMAL**2 / (2 * worth)) / (1 + NORMAL**2 / worth)
    reach = NORMAL * np.sqrt(share * (1 - share) / worth + (NORMAL / (2 * worth)) ** 2) / (1 + NORMAL**2 / worth)
    return table.assign(low=np.maximum(middle - reach, 0), high=np.minimum(middle + reach, 1))


def percent(row: Mapping[Any, Any] | pd.Series[Any], rate: str) -> str:
    """A share with its interval in percent: `63% [61, 65]`."""
    low, high = row["low"], row["high"]
    ends = "" if np.isnan(low) else f" [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{row[rate]:.0%}{ends}"


def about_intervals(table: pd.DataFrame) -> str:
    """What the bars are, or why there are none."""
    return NOTE if table["low"].notna().any() else UNKNOWN
