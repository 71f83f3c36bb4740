"""Leviathan's closed form beside replayed chains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from specdraft.report.course.blocks import Grid
from specdraft.report.course.catalogue import Catalogue
from specdraft.report.course.measures import CHAIN
from specdraft.report.words import Name, Text
from specdraft.results.intervals import Interval, number
from specdraft.results.study_tables import StudyTables
from specdraft.theory.formulas import expected_tokens

RULE = "rejection"


def theory_part(studies: Iterable[StudyTables], texts: Catalogue) -> tuple[Grid, Text] | None:
    """A table of all chains whose overlap is known, and how often the closed form is inside the interval."""
    chains = pd.concat([study.summary for study in studies], ignore_index=True)
    chains = chains[(chains["tree"] == CHAIN) & (chains["acceptance"] == RULE) & chains["alpha"].notna()]
    chains = chains[~chains["draft_temperature"].str.contains("-")]  # one alpha for all depths
    if chains.empty:
        return None
    listed = chains.to_dict("records")
    inside = [_inside(row) for row in listed]
    rows: list[list[Text]] = [
        [(Name(row["pair"]),), (str(row["budget"]),), (str(Interval.of(row, "alpha")),), (number(_predicted(row)),),
         (str(Interval.of(row, "block_efficiency")),), (texts.label("theory.inside" if one else "theory.outside"),)]
        for row, one in zip(listed, inside, strict=True)
    ]  # fmt: skip
    grid = Grid(texts.label("theory.table"), texts.of("theory.columns"), rows, "summary.csv")
    return grid, texts.say("theory.said", inside=sum(inside), all=len(rows))


def _predicted(row: dict[Any, Any]) -> float:
    return expected_tokens(float(row["alpha"]), int(row["budget"]))


def _inside(row: dict[Any, Any]) -> bool:
    measured = Interval.of(row, "block_efficiency")
    return measured.low <= _predicted(row) <= measured.high
