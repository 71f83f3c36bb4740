"""Trees that are sized in every step by what they cost, beside every budget that is the same in all steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from specdraft.errors import ResultsError
from specdraft.report.findings import Findings
from specdraft.report.study_files import StudyFiles, visible
from specdraft.report.table import Table, interval_cell, value_cell
from specdraft.report.words import say
from specdraft.results.bounds import Ratios, bounds, bounds_of_differences, ratios_of_sums
from specdraft.results.comparisons import GROUP_KEYS
from specdraft.results.intervals import Interval
from specdraft.results.study_tables import read_records

STOP = "-goodput"  # of a tree's name
COLUMNS = ("setting", "tree", "up to", "nodes sent", "tokens/s, sized in every step [95 %]", "best fixed budget",
           "budget in hindsight", "no tree", "sized over fixed [95 %]")  # fmt: skip
SPEEDS = {"live": ("tokens_per_s", "speedup"), "replay": ("est_tokens_per_s", "est_speedup")}


def sized_table(findings: Findings) -> Table | None:
    """A row for each such tree; None where there is none, or no prompt's row has a time."""
    rows = findings.rows if "pruning" in findings.rows else findings.rows.assign(pruning="")
    sized = rows[rows["tree"].str.endswith(STOP)]
    if sized.empty or "engine" not in rows:
        return None
    trees = {*sized["tree"], *sized["tree"].str.removesuffix(STOP)}
    records = _records(findings.study, rows.loc[rows["tree"].isin(trees), "combination"])
    listed = [] if records is None else [_row(one, rows, records) for _, one in sized.iterrows()]
    if not (there := [row for row in listed if row is not None]):
        return None
    note = say(
        "Tokens per second, estimated from counts and measured costs where the engine is replay. The fixed budget is "
        "the fastest of this study, the one in hindsight the fastest of each prompt, which nobody can know before. "
        "Intervals are over prompts, the difference is paired. Where no tree is the fastest, no tree is the answer."
    )
    return Table("sized", "Trees sized in every step by what they cost", COLUMNS, there, note)


def _records(study: StudyFiles, combinations: Iterable[str]) -> pd.DataFrame | None:
    """Rows of every prompt; None where they were not kept or cannot be read."""
    try:
        return read_records(study.folder, combinations=set(combinations))
    except ResultsError:
        return None


class _Timed(NamedTuple):
    """Some combinations on the same prompts.

    Attributes:
        budgets: `[n]`.
        speed: n rates, tokens per second.
        categories: `[P]` of the prompts, as numbers.
    """

    budgets: np.ndarray
    speed: Ratios
    categories: np.ndarray


def _timed(rows: pd.DataFrame, records: pd.DataFrame, column: str) -> _Timed:
    """Of rows of the summary; prompts that some of them lack are left out."""
    some = records[records["combination"].isin(rows["combination"])]
    some = some.assign(tokens=some["new_tokens"], seconds=some["new_tokens"] / some[column])
    sums = some.groupby(["combination", "prompt_id", "category"])[["tokens", "seconds"]].sum()
    tokens, seconds = (
        pd.DataFrame(sums[name].unstack(["prompt_id", "category"])).reindex(rows["combination"])
        for name in ("tokens", "seconds")
    )
    there = (seconds.to_numpy() > 0).all(axis=0)
    categories = pd.factorize(tokens.columns.get_level_values("category"))[0][there]
    speed = ratios_of_sums(tokens.to_numpy()[:, there].astype(float), seconds.to_numpy()[:, there])
    return _Timed(rows["budget"].to_numpy(), speed, categories)


def _row(one: pd.Series[Any], rows: pd.DataFrame, records: pd.DataFrame) -> tuple[str, ...] | None:
    column, ratio = SPEEDS[str(one["engine"])]
    if pd.isna(one[column]):
        return None
    keys = [key for key in GROUP_KEYS if key in rows and key not in ("budget", "pruning")]
    alike = (rows[keys].astype(str) == one[keys].astype(str)).all(axis=1)
    fixed = rows[alike & (rows["tree"] == str(one["tree"]).removesuffix(STOP)) & (rows["budget"] <= one["budget"])]
    fixed = fixed[fixed["pruning"].isin(["", "none"]) & fixed[column].notna()]
    timed = _timed(pd.concat([fixed, one.to_frame().T]), records, column)
    own, others = timed.speed.at(np.array([-1])), timed.speed.at(np.arange(len(fixed)))
    low, high = bounds(own, timed.categories)[0]
    plain = one[column] / one[ratio]
    names = (visible(one["panel"]), one["shown"], f"{one['budget']:g}", f"{one['drafted_tokens'] / one['steps']:.1f}")
    said = interval_cell(Interval(own.estimates[0], low, high))
    if not len(fixed):
        return (*names, said, "–", "–", value_cell(plain), "–")
    best = int(np.argmax(others.estimates))
    fastest = f"{value_cell(others.estimates[best])} with {timed.budgets[best]:g}"
    lead = _lead(own, others.at(np.array([best])), timed)
    return (*names, said, fastest, value_cell(_in_hindsight(others)), value_cell(plain), lead)


def _in_hindsight(speed: Ratios) -> float:
    """Tokens per second with the fastest budget of each prompt."""
    fastest = speed.below.argmin(0), np.arange(speed.below.shape[1])
    return float(speed.above[fastest].sum() / speed.below[fastest].sum())


def _lead(own: Ratios, fixed: Ratios, timed: _Timed) -> str:
    """How much faster than the fixed budget."""
    low, high = bounds_of_differences(own, fixed, timed.categories)[0]
    return interval_cell(Interval(own.estimates[0] - fixed.estimates[0], low, high), "+.2f")
