"""A golden file: what a study showed, combination by combination, to hold a later one against.

specdraft: golden
common: {target: "zoo:target", temperature: 0.0}       # keys that all rows share
rows:
- keys: {pair: zoo, tree: chain, budget: 4}
  block_efficiency: {value: 2.31, lo: 2.25, hi: 2.38}   # `lo` and `hi` are null with fewer than 5 prompts
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import pandas as pd
import yaml

from specdraft.exchange.reading import METRICS
from specdraft.exchange.rows import KEYS, same
from specdraft.exchange.source import ForeignFile
from specdraft.results.intervals import Interval

MARK, ROWS, COMMON, NAMES = "specdraft", "rows", "common", "keys"
GOLDEN = "golden"
INSIDE, LEFT, GONE = "inside", "left its interval", "gone"


@dataclass(frozen=True)
class Held:
    """One metric of one row.

    Attributes:
        keys: what names the row.
        expected: the golden file's.
        value: the study's now; NaN where it is gone.
        verdict: `INSIDE`, `LEFT` or `GONE`.
    """

    keys: dict[str, Any]
    metric: str
    expected: Interval
    value: float
    verdict: str


def golden_text(summary: pd.DataFrame) -> str:
    """The golden file of rows of `summary.csv`."""
    keys = [key for key in KEYS if key in summary]
    common = [key for key in keys if len(summary) > 1 and summary[key].nunique(dropna=False) == 1]
    rows = [
        {NAMES: {key: _plain(row[key]) for key in keys if key not in common}}
        | {metric: _rounded(Interval.of(row, metric)) for metric in METRICS}
        for _, row in summary.iterrows()
    ]
    shared = {key: _plain(summary.iloc[0][key]) for key in common}
    return str(yaml.safe_dump({MARK: GOLDEN, COMMON: shared, ROWS: rows}, sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _rounded(interval: Interval) -> dict[str, float | None]:
    return {name: None if bound is None else float(f"{bound:.6g}") for name, bound in interval.as_dict().items()}


def is_golden(file: ForeignFile) -> bool:
    """Whether it is such a file."""
    return file.text.lstrip().startswith(f"{MARK}: {GOLDEN}")


def held_against(file: ForeignFile, summary: pd.DataFrame) -> list[Held]:
    """Every metric of every row of a golden file, beside a study's.

    Raises:
        ConfigError: the file is not as `golden_text` writes it.
    """
    common, rows = _read(file)
    found = []
    for number, row in enumerate(rows, 1):
        keys = row.get(NAMES)
        if not isinstance(keys, dict) or not any(metric in row for metric in METRICS):
            raise file.refuse(f"row {number} has no {NAMES}, or none of {', '.join(METRICS)}")
        ours = _of(summary, common | keys, file)
        for metric in METRICS:
            if metric in row:
                found.append(_held(keys, metric, _interval(row[metric], metric, number, file), ours))
    return found


def _read(file: ForeignFile) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        content = yaml.safe_load(file.text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise file.refuse("is no YAML as `specdraft export --format golden-yaml` writes it") from error
    rows, common = (content.get(name) if isinstance(content, dict) else None for name in (ROWS, COMMON))
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise file.refuse(f"has no list of {ROWS}; expected what `specdraft export --format golden-yaml` writes")
    if not isinstance(common, dict):
        raise file.refuse(f"{COMMON} is no mapping; expected keys that all rows share")
    return common, rows


def _of(summary: pd.DataFrame, keys: Mapping[str, Any], file: ForeignFile) -> pd.DataFrame:
    if unknown := [key for key in keys if key not in KEYS]:
        raise file.refuse(f"{unknown[0]!r} is no key of a combination")
    kept = summary
    for key, value in keys.items():
        kept = kept[same(kept[key], value)]
    return kept


def _interval(value: Any, metric: str, number: int, file: ForeignFile) -> Interval:
    bounds = [value.get(name) for name in ("value", "lo", "hi")] if isinstance(value, dict) else []
    if not bounds or not all(bound is None or type(bound) in (int, float) for bound in bounds):
        raise file.refuse(f"row {number}: {metric} has no value, lo and hi")
    return Interval(*(nan if bound is None else float(bound) for bound in bounds))


def _held(keys: dict[str, Any], metric: str, expected: Interval, ours: pd.DataFrame) -> Held:
    if len(ours) != 1:
        return Held(keys, metric, expected, nan, GONE)
    value = float(ours.iloc[0][metric])
    slack = 1e-5 * abs(expected.value)  # six digits are written
    low, high = (expected.low, expected.high) if expected.known else (expected.value, expected.value)
    inside = low - slack <= value <= high + slack or (isnan(value) and isnan(expected.value))
    return Held(keys, metric, expected, value, INSIDE if inside else LEFT)
