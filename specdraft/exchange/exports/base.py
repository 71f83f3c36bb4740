"""What a form has, and how a study's steps are found."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd

from specdraft.errors import ConfigError
from specdraft.exchange.rows import chosen_rows, name_of, telling
from specdraft.results.study_tables import StudyTables


@dataclass
class Exported:
    """What is to be written.

    Attributes:
        files: name -> content.
        notes: what was left out, a line each.
    """

    files: dict[str, str | bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Export(ABC):
    """A form."""

    kind: ClassVar[str]
    about: ClassVar[str]

    @abstractmethod
    def make(self, study: StudyTables, rows: pd.DataFrame) -> Exported:
        """The files.

        Args:
            study: all tables.
            rows: the rows of its summary that are wanted.

        Raises:
            ConfigError: the study lacks what the form needs.
        """


def export(form: Export, study: StudyTables, wanted: Sequence[str]) -> Exported:
    """A study, or some of its rows (`tree=chain`), in a form. Raises `ConfigError`."""
    return form.make(study, chosen_rows(study.summary, wanted, study.folder))


def names(study: StudyTables, rows: pd.DataFrame) -> dict[str, str]:
    """Combination -> what its file is called: the keys that tell combinations apart."""
    keys = telling(study.summary)
    called = {row["combination"]: name_of(row, keys) for _, row in rows.iterrows()}
    slugs = {name: re.sub(r"[^\w.=-]+", "-", text).replace("=", "-") for name, text in called.items()}
    doubled = len(set(slugs.values())) < len(slugs)
    return {name: f"{slug}-{name}" if doubled else slug for name, slug in slugs.items()}


def records_of(study: StudyTables) -> pd.DataFrame:
    """The table of all prompts. Raises `ConfigError` where the study was run without."""
    if study.records is None:
        raise ConfigError(f"{study.folder}: has no records.csv; run the sweep again without output.records=none")
    return study.records


def steps_of(study: StudyTables, rows: pd.DataFrame, kind: str) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Combination -> its steps, and a note on combinations that have none.

    Raises:
        ConfigError: the study has none at all, or none of these rows.
    """
    if study.steps is None:
        raise ConfigError(
            f"{study.folder}: has no steps.csv, and {kind} lists every step; run the sweep again with output.steps=true"
        )
    wanted = [*rows["combination"]]
    there = dict([*study.steps[study.steps["combination"].isin(wanted)].groupby("combination")])
    if not there:
        raise ConfigError(
            f"{study.folder}: steps.csv has no steps of the chosen rows (replayed sampling has expected values)"
        )
    lacking = len(wanted) - len(there)
    return there, [f"{lacking} rows have no steps and are left out"] if lacking else []
