"""From a number to a tree: the best shape's categories, their prompts, and which of these are worth a look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from specdraft.errors import ResultsError
from specdraft.report.findings import Findings
from specdraft.report.leads import Lead
from specdraft.report.study_files import StudyFiles, visible
from specdraft.report.table import interval_cell, value_cell
from specdraft.report.words import Name, Text, plural, say
from specdraft.results.intervals import Interval
from specdraft.results.study_tables import read_csv, read_records

MOST = 3  # settings
CATEGORIES = "by_category.csv"
TYPICAL, BEST, WORST = "typical", "best", "worst"


@dataclass(frozen=True)
class PromptRow:
    """One prompt of a combination.

    Attributes:
        value: tokens per step.
        picked: why it is shown step by step, if it is.
    """

    prompt_id: str
    value: float
    steps: float
    accepted: float
    picked: str = ""

    @property
    def shown(self) -> str:
        """Its value as a cell."""
        return value_cell(self.value)


@dataclass(frozen=True)
class CategoryRow:
    """One category of a combination with its prompts, the best first."""

    name: str
    value: str
    prompts: Sequence[PromptRow]

    @property
    def counted(self) -> str:
        """`8 prompts`."""
        return plural(len(self.prompts), "prompt")


@dataclass(frozen=True)
class Drill:
    """One combination, from its summary to its prompts.

    Attributes:
        summary: the combination in a sentence.
        pages: prompt id -> a page of its steps.
        note: what to know of the pages, or why there are none.
    """

    panel: str
    combination: str
    summary: Text
    categories: Sequence[CategoryRow]
    pages: Mapping[str, str] = field(default_factory=dict)
    note: Text = ()

    @property
    def picked(self) -> list[PromptRow]:
        """The prompts that are worth a look: a typical one, the best, the worst."""
        order = (TYPICAL, BEST, WORST)
        rows = [row for category in self.categories for row in category.prompts if row.picked]
        return sorted(rows, key=lambda row: order.index(row.picked))


def candidates(findings: Findings, lead: Lead) -> pd.DataFrame:
    """The rows at a lead's budget whose steps may be shown, the best first."""
    rows = findings.rows
    there = rows[(rows["panel"] == lead.panel) & (rows["competes"] == lead.budget)]
    return there.drop_duplicates("tree").sort_values("block_efficiency", ascending=False, kind="stable")


def read_prompt_rows(study: StudyFiles, rows: pd.DataFrame) -> pd.DataFrame | None:
    """What records say of these rows of the summary: one for each of their prompts, of the first repeat; None where
    they were not kept or cannot be read."""
    try:
        records = read_records(study.folder, combinations=set(rows["combination"]))
    except ResultsError:
        return None
    records = records[records["block_efficiency"].notna()]
    return records[records["repeat"] == 0].astype({"prompt_id": str, "category": str})


def drill(study: StudyFiles, row: pd.Series[Any], records: pd.DataFrame) -> Drill | None:
    """A combination's categories and prompts; None where none of them was kept."""
    mine = records[records["combination"] == row["combination"]]
    if mine.empty:
        return None
    picked = _picked(mine, float(row["block_efficiency"]))
    summary = say(
        "{}, {} with {}: {} tokens per pass of the target over {}.",
        Name(row["panel"]),
        Name(row["shown"]),
        plural(int(row["nodes"]), "node"),
        str(Interval.of(row, "block_efficiency")),
        plural(len(mine), "prompt"),
    )
    return Drill(str(row["panel"]), str(row["combination"]), summary, list(_categories(study, mine, picked)))


def _picked(rows: pd.DataFrame, mean: float) -> dict[str, str]:
    """Prompt id -> why it is worth a look; the best and the worst by tokens per step, the typical one nearest to the
    summary's."""
    values, names = rows["block_efficiency"].to_numpy(), rows["prompt_id"].to_numpy()
    reasons: dict[str, str] = {}
    for why, place in ((TYPICAL, np.abs(values - mean).argmin()), (BEST, values.argmax()), (WORST, values.argmin())):
        reasons.setdefault(str(names[place]), why)
    return reasons


def _categories(study: StudyFiles, rows: pd.DataFrame, picked: Mapping[str, str]) -> Iterator[CategoryRow]:
    intervals = _intervals(study, str(rows["combination"].iloc[0]))
    for name in dict.fromkeys(rows["category"]):
        some = rows[rows["category"] == name].sort_values("block_efficiency", ascending=False, kind="stable")
        counts = some[["block_efficiency", "steps", "accepted_tokens"]].astype(float).to_numpy().tolist()
        listed = zip(some["prompt_id"], counts, strict=True)
        prompts = [
            PromptRow(visible(prompt), value, steps, accepted, picked.get(prompt, ""))
            for prompt, (value, steps, accepted) in listed
        ]
        made = some[["accepted_tokens", "bonus_tokens"]].sum().sum() / some["steps"].sum()
        yield CategoryRow(visible(name), intervals.get(name) or value_cell(made), prompts)


def _intervals(study: StudyFiles, combination: str) -> dict[str, str]:
    """Category -> tokens per step with its interval, as the study's file has it."""
    try:
        table = read_csv(study.folder / CATEGORIES, dtype={"category": str, "combination": str})
        rows = table[table["combination"] == combination]
        return {row["category"]: interval_cell(Interval.of(row, "block_efficiency")) for _, row in rows.iterrows()}
    except (ResultsError, KeyError, ValueError):
        return {}
