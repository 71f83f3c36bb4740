"""Which rows of a study are meant: `key=value` as on a sweep's command line, by the columns that name a combination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from specdraft.errors import ConfigError, did_you_mean
from specdraft.results.tables import COMBINATION_KEYS

KEYS = [key for key in COMBINATION_KEYS if key != "combination"]
SHOWN, DERIVED = ("pair", "tree", "budget"), ("target", "draft", "nodes", "depth")
MOST_NAMED = 6


def chosen_rows(summary: pd.DataFrame, wanted: Sequence[str], named: object) -> pd.DataFrame:
    """The rows of `summary.csv` with these values.

    Args:
        summary: a study's.
        wanted: `tree=chain`, `budget=4,8`.
        named: what the study is called in messages.

    Raises:
        ConfigError: one is no `key=value`, names no column, or a value that no row has with the others.
    """
    kept = summary
    for one in wanted:
        key, equals, values = one.partition("=")
        if not equals or not values:
            raise ConfigError(f"{one!r} is not KEY=VALUE; expected tree=chain, budget=4, pair=zoo")
        if key not in COMBINATION_KEYS:
            raise ConfigError(f"{key!r} is no key of a study's rows{did_you_mean(key, COMBINATION_KEYS)}")
        listed = np.logical_or.reduce([same(kept[key], value) for value in values.split(",")])
        if not listed.any():
            known = list(dict.fromkeys(map(_text, kept[key])))
            more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
            raise ConfigError(f"{one}: no row of {named} has it; expected {', '.join(known[:MOST_NAMED])}{more}")
        kept = kept[listed]
    return kept


def same(column: pd.Series[Any], value: Any) -> npt.NDArray[np.bool_]:
    """`[n]` whether a column's values are that one, as a number where they are numbers."""
    if pd.api.types.is_numeric_dtype(column):
        try:
            return np.array(np.isclose(column.to_numpy(float), float(value), rtol=1e-9, atol=0, equal_nan=True))
        except (TypeError, ValueError):
            return np.zeros(len(column), dtype=bool)
    return np.asarray(column.astype(str) == str(value))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def telling(summary: pd.DataFrame) -> list[str]:
    """The keys whose values differ between rows; `pair`, `tree` and `budget` always, what follows from others only
    where nothing else tells rows apart."""
    keys = [key for key in KEYS if key in SHOWN or (key in summary and summary[key].nunique(dropna=False) > 1)]
    short = [key for key in keys if key not in DERIVED]
    return keys if summary.duplicated(short).any() else short


def name_of(row: pd.Series[Any], keys: Sequence[str]) -> str:
    """`tree=chain budget=4`."""
    return " ".join(f"{key}={_text(row[key])}" for key in keys)
