"""The files of a study: their names, and how they are written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from specdraft.errors import ResultsError

FILES = ("records.csv", "summary.csv", "by_category.csv", "comparisons.csv", "lengths.csv", "positions.csv",
         "nodes.csv", "steps.csv", "manifest.json", "config.yaml", "failures.jsonl", "journal.jsonl", "report.html",
         "report.md")  # fmt: skip


def cannot_write(path: Path, error: OSError) -> ResultsError:
    """A `ResultsError` that names the file and the reason."""
    return ResultsError(f"{path}: cannot be written: {error.strerror or error}; what was written before is kept")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole: readers see the old content or the new one. Text is written as UTF-8.

    Raises:
        ResultsError: it cannot be written; what was there before is there still.
    """
    written = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(written)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise cannot_write(path, error) from error


def check_folder_writable(folder: Path) -> None:
    """Make a folder; raises `ResultsError` where no file can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_a_file(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def check_file_writable(path: Path, option: str = "") -> None:
    """Raise `ResultsError` where a file cannot be written, before anything is computed for it.

    Args:
        path: the file; its folder must be there.
        option: the command-line option that names it, for the message.
    """
    named = f"{option} {path}".lstrip()
    if path.is_dir():
        raise ResultsError(f"{named}: this is a folder; expected a file")
    if not path.parent.is_dir():
        raise ResultsError(f"{named}: there is no folder {path.parent}")
    try:
        _try_a_file(path.parent)
    except OSError as error:
        raise ResultsError(f"{named}: cannot be written: {error.strerror or error}") from error


def _try_a_file(folder: Path) -> None:
    """Write a file that is gone at once: permissions alone do not say whether that is possible."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def rank_path_text(path: Iterable[int]) -> str:
    """`(0, 1)` -> `0/1`."""
    return "/".join(map(str, path))


def to_csv(table: pd.DataFrame) -> str:
    """A table as text, six significant digits in its fractions."""
    return str(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
