"""Acceptance by child rank, from a file: what the best tree is computed from (`trees.optimal`).

JSON: a vector `[0.63, 0.11]`, or rows of it by depth; of counts, `{"counts": [423, 72], "none": 172}` or `"total": 667`
in place of `none` (a list of each where counts are rows). CSV, by its columns: `rank,count` (a rank `none` for the
rest), `rank,acceptance`, `depth,rank,acceptance`, or `depth,rank,reached,accepted` as in a study's `siblings.csv`.
Anything else is read as an engine's file: its positions are a chain's, one rank at each depth.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specdraft.exchange.formats import read
from specdraft.exchange.source import ForeignFile, read_foreign
from specdraft.trees.optimal import check_acceptance

VECTOR, COUNTS, NONE, TOTAL = "acceptance", "counts", "none", "total"
COLUMNS = ({"depth", "rank", "reached", "accepted"}, {"depth", "rank", VECTOR}, {"rank", VECTOR}, {"rank", "count"})
MOST_RANKS = 10_000


def read_acceptance_file(path: Path) -> np.ndarray:
    """`[ranks]` or `[depths, ranks]` probabilities.

    Raises:
        ConfigError: the file is none of these, or what it holds are no probabilities.
    """
    file = read_foreign(path)
    if isinstance(file.whole, list) and (not file.rows and not _is_counts(file.whole)):
        return check_acceptance(file.whole, str(path))
    if isinstance(file.whole, dict) and (VECTOR in file.whole or COUNTS in file.whole):
        known = file.whole
        return check_acceptance(known[VECTOR], str(path)) if VECTOR in known else _of_counts(known, file)
    if (header := _header(file)) is not None:
        return _of_table(header, file)
    conditional = read(file).conditional
    if not conditional:
        raise file.refuse("has no acceptance by position; expected acceptance by child rank (specdraft help trees)")
    return check_acceptance(np.nan_to_num(np.array(conditional))[:, None], str(path))


def _is_counts(values: Sequence[Any]) -> bool:
    """A bare list of whole numbers is a histogram of accepted tokens, which is an engine's."""
    return len(values) > 1 and all(type(value) is int for value in values) and sum(values) > 1


def _of_counts(known: Mapping[str, Any], file: ForeignFile) -> np.ndarray:
    """Counts by rank over all of them, those whose token had no rank among them included."""
    rest = next((name for name in (NONE, TOTAL) if name in known), None)
    try:
        counts, other = np.asarray(known[COUNTS], dtype=np.float64), np.asarray(known[rest or COUNTS], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise file.refuse(f"{COUNTS} are no list of numbers, or rows of different lengths") from error
    if rest is None:
        raise file.refuse(f"{COUNTS} without {NONE} or {TOTAL}: how often no rank was accepted is not told")
    if counts.ndim not in (1, 2) or not counts.size or other.shape != counts.shape[:-1]:
        raise file.refuse(f"{rest} has the shape {other.shape}; expected a number for each row of {COUNTS}")
    totals = other if rest == TOTAL else counts.sum(axis=-1) + other
    return check_acceptance(_shares(counts, totals[..., None]), str(file.path))


def _shares(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Counts over totals; 0 where nothing was counted."""
    shares: np.ndarray = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    return shares


def _header(file: ForeignFile) -> set[str] | None:
    """The columns of a CSV that are known; None where it is none."""
    names = {name.strip() for name in file.text.splitlines()[0].split(",")}
    return next((wanted for wanted in COLUMNS if wanted <= names), None)


def _of_table(columns: set[str], file: ForeignFile) -> np.ndarray:
    lines = [*csv.DictReader(file.text.splitlines(), skipinitialspace=True)]
    if len({line.get("combination") for line in lines}) > 1:
        raise file.refuse("holds several combinations; expected the lines of one")
    numbers = [{name: _number(line[name], name, at, file) for name in columns} for at, line in enumerate(lines, 2)]
    if not numbers:
        raise file.refuse("has no lines below its columns")
    ranked = [line for line in numbers if line["rank"] >= 0]
    depths, ranks = (np.array([line.get(name, 1) for line in ranked], dtype=np.int64) for name in ("depth", "rank"))
    if not len(ranks) or ranks.max() >= MOST_RANKS or depths.min() < 1 or depths.max() >= MOST_RANKS:
        raise file.refuse("has a depth or a rank out of range; expected depths from 1, ranks from 0")
    values = np.zeros((2, depths.max(), ranks.max() + 1))
    for place, names in enumerate((("accepted", VECTOR, "count"), ("reached",))):
        if name := next((name for name in names if name in columns), None):
            np.add.at(values[place], (depths - 1, ranks), [line[name] for line in ranked])
    if "reached" in columns:
        return check_acceptance(_shares(*values), str(file.path))
    whole = sum(line.get("count", 0) for line in numbers) or 1.0
    return check_acceptance(values[0] / whole if "depth" in columns else values[0, 0] / whole, str(file.path))


def _number(text: str | None, name: str, line: int, file: ForeignFile) -> float:
    if name == "rank" and text is not None and text.strip() == NONE:
        return -1.0
    try:
        return float(text or "")
    except ValueError as error:
        raise file.refuse(f"line {line}: {name}={text!r} is no number") from error
