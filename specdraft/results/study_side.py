"""One of several studies that are set side by side: what any results folder has, also an earlier version's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from specdraft.errors import ResultsError
from specdraft.results.files import RECORDS, RECORDS_PARQUET
from specdraft.results.study_tables import BEFORE, read_config, read_csv, read_manifest, read_records, read_table
from specdraft.results.tables import COMBINATION_KEYS

SUMMARY = "summary.csv"


@dataclass(frozen=True, eq=False)
class StudySide:
    """A study as far as comparing needs it.

    Attributes:
        name: what it is called beside the others.
        summary: a row per combination.
        records: a row per combination, prompt and repeat; None where the folder does not hold them.
        manifest, config: empty where the folder has none.
        notes: what had to be assumed, a line each.
    """

    folder: Path
    name: str
    summary: pd.DataFrame
    records: pd.DataFrame | None
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def digests(self) -> dict[str, str]:
        """Prompt -> digest of its text."""
        digests = self.manifest.get("prompt_digests")
        return {str(prompt): str(digest) for prompt, digest in digests.items()} if isinstance(digests, dict) else {}


def read_side(folder: Path) -> StudySide:
    """Read a results folder.

    Raises:
        ResultsError: it holds no finished study, or a table that is damaged or lacks what no version left out.
    """
    manifest = read_manifest(folder)
    summary = read_table(folder / SUMMARY)
    if summary.empty:
        raise ResultsError(f"{folder / SUMMARY}: has no rows; run `specdraft sweep` first")
    has_records = any((folder / file).exists() for file in (RECORDS, RECORDS_PARQUET))
    header = [*map(str, read_csv(folder / SUMMARY, nrows=0))]
    assumed = [f"{key}={BEFORE[key]}" for key in COMBINATION_KEYS if key in BEFORE and key not in header]
    notes = [f"{folder}: an earlier version's, without the columns of {', '.join(assumed)}"] if assumed else []
    config = read_config(folder / "config.yaml") if (folder / "config.yaml").exists() else {}
    study = manifest["study"]
    name = study.get("name") if isinstance(study, dict) else None
    return StudySide(
        folder, str(name or folder.resolve().name), summary, read_records(folder) if has_records else None,
        manifest, config, notes,
    )  # fmt: skip


def read_two(a: Path, b: Path) -> tuple[StudySide, StudySide]:
    """Two different results folders. Raises `ResultsError`."""
    if a.resolve() == b.resolve():
        raise ResultsError(f"{a} and {b} are the same folder; expected two studies")
    return read_side(a), read_side(b)


def tell_apart(sides: list[StudySide]) -> list[str]:
    """A name for each: the study's, or where two share one the shortest end of the folder's path that differs."""
    names = [side.name for side in sides]
    if len(set(names)) == len(names):
        return names
    parts = [side.folder.resolve().parts for side in sides]
    ends = (["/".join(path[-length:]) for path in parts] for length in range(1, max(map(len, parts)) + 1))
    return next((named for named in ends if len(set(named)) == len(named)), [str(side.folder) for side in sides])
