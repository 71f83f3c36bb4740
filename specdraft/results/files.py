"""The files of a study: their names, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from specdraft.errors import ResultsError

FILES = ("records.csv", "summary.csv", "by_category.csv", "comparisons.csv", "lengths.csv", "positions.csv",
         "nodes.csv", "steps.csv", "manifest.json", "config.yaml", "failures.jsonl", "journal.jsonl", "report.html",
         "report.md")  # fmt: skip


def cannot_write(path: Path, error: OSError) -> ResultsError:
    """A `ResultsError` that names the file and the reason."""
    return ResultsError(f"{path}: cannot be written: {error.strerror or error}; what was written before is kept")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole: readers see the old text or the new one. Raises `ResultsError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def rank_path_text(path: Iterable[int]) -> str:
    """`(0, 1)` -> `0/1`."""
    return "/".join(map(str, path))


def to_csv(table: pd.DataFrame) -> str:
    """A table as text, six significant digits in its fractions."""
    return str(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
