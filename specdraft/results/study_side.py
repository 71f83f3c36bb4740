"""One of several studies that are set side by side: what any results folder has, also an earlier version's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from specdraft.errors import ResultsError
from specdraft.results.files import RECORDS, RECORDS_PARQUET
from specdraft.results.methods_side import FILE as METHODS
from specdraft.results.methods_side import NOTE, SUMMARY, read_methods
from specdraft.results.study_tables import BEFORE, read_config, read_csv, read_manifest, read_records, read_table
from specdraft.results.tables import COMBINATION_KEYS


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
    """Read a results folder: a study's, or that of a benchmark of methods.

    Raises:
        ResultsError: it holds neither, or a table that is damaged or lacks what no version left out.
    """
    if (folder / METHODS).exists():
        summary, manifest = read_methods(folder)
        return StudySide(folder, folder.resolve().name, summary, None, manifest, {}, [f"{folder}: {NOTE}"])
    manifest = read_manifest(folder)
    summary = read_table(folder / SUMMARY)
    if summary.empty:
        raise ResultsError(f"{folder / SUMMARY}: has no rows; run `specdraft sweep` first")
    has_records = any((folder / file).exists() for file in (RECORDS, RECORDS_PARQUET))
    header = [*map(str, read_csv(folder / SUMMARY, nrows=0))]
    lacking = [key for key in COMBINATION_KEYS if key in BEFORE and key not in header]
    assumed = [key if BEFORE[key] == "" else f"{key}={BEFORE[key]}" for key in lacking]
    notes = [f"{folder}: an earlier version's, without the columns of {', '.join(assumed)}"] if assumed else []
    config = read_config(folder / "config.yaml") if (folder / "config.yaml").exists() else {}
    study = manifest["study"]
    name = study.get("name") if isinstance(study, dict) else None
    return StudySide(
        folder, str(name or folder.resolve().name), summary, read_records(folder) if has_records else None,
        manifest, config, notes,
    )  # fmt: skip


def tell_apart(studies: Sequence[tuple[str, Path]]) -> list[str]:
    """A name for each of studies and their folders: its own, or where two share one the shortest ends of the paths that
    differ."""
    names = [name for name, _ in studies]
    if len(set(names)) == len(names):
        return names
    parts = [folder.resolve().parts for _, folder in studies]
    ends = (["/".join(path[-length:]) for path in parts] for length in range(1, max(map(len, parts)) + 1))
    return next(named for named in ends if len(set(named)) == len(named))


def refuse_twice(folders: Sequence[Path]) -> None:
    """Raise `ResultsError` where a folder is named twice."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (first := seen.setdefault(folder.resolve(), folder)) is not folder:
            raise ResultsError(f"{first} and {folder} are the same folder; expected different studies")
