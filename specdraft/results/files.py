"""The files of a study: their names, and how they are written."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype

from specdraft.errors import ResultsError

RECORDS, RECORDS_PARQUET, MANIFEST = "records.csv", "records.parquet", "manifest.json"
FILES = (RECORDS, RECORDS_PARQUET, "summary.csv", "by_category.csv", "comparisons.csv", "lengths.csv", "sizes.csv",
         "positions.csv", "nodes.csv", "siblings.csv", "reliability.csv", "offsets.csv", "ablation.csv", "steps.csv",
         MANIFEST, "config.yaml", "failures.jsonl", "journal.jsonl", "progress.json", "report.html",
         "report.md")  # fmt: skip

FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a text begins that a spreadsheet computes, or that was marked
STRUCTURE = re.compile(r'[,"\r\n]')  # what makes a cell need quotes
PIECE = 50_000  # lines of a table that are written at a time
ABSOLUTE = re.compile(r"(?<![^\s'\"=(\[{,:])/(?:[^/\s'\"=,:)\]}]+/?)+")


def cannot_write(path: Path, error: OSError) -> ResultsError:
    """A `ResultsError` that names the file and the reason."""
    return ResultsError(f"{path}: cannot be written: {error.strerror or error}; what was written before is kept")


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Where to write a file, which takes the place of the one at `path` at the end; after an error nothing does.

    Raises:
        ResultsError: it cannot be written; what was there before is there still.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


@contextmanager
def flushed(path: Path) -> Iterator[BinaryIO]:
    """A new file to write, all of which is on the disk at the end. Raises `OSError`."""
    with path.open("wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


def write_atomically(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Replace a file as a whole: readers see the old content or the new one. Text is written as UTF-8.

    Raises:
        ResultsError: it cannot be written; what was there before is there still.
    """
    pieces = [content] if isinstance(content, str | bytes) else content
    with placed(path) as temporary, flushed(temporary) as handle:
        handle.writelines(piece.encode() if isinstance(piece, str) else piece for piece in pieces)


def check_folder_writable(folder: Path) -> None:
    """Make a folder; raises `ResultsError` where no file can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_a_file(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def check_file_writable(path: Path, option: str = "", endings: Sequence[str] = ()) -> None:
    """Raise `ResultsError` where a file cannot be written, before anything is computed for it.

    Args:
        path: the file; its folder must be there.
        option: the command-line option that names it, for the message.
        endings: what its name may end in, because that is what is written; any if left out.
    """
    named = f"{option} {path}".lstrip()
    if path.is_dir():
        raise ResultsError(f"{named}: this is a folder; expected a file")
    if not path.parent.is_dir():
        raise ResultsError(f"{named}: there is no folder {path.parent}")
    if endings and path.suffix.lower() not in endings:
        raise ResultsError(f"{named}: expected a file that ends in {' or '.join(endings)}")
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
    """See `csv_pieces`."""
    return "".join(csv_pieces(table))


def csv_pieces(table: pd.DataFrame, header: bool = True) -> Iterator[str]:
    """A table as text, some lines at a time, its columns' names first; six significant digits in its fractions.

    A text that a spreadsheet would compute is marked as text, by an apostrophe before it; `from_csv` takes it off.
    """
    if header:
        yield ",".join(map(_quoted, table.columns)) + "\n"
    for start in range(0, len(table), PIECE):
        piece = table.iloc[start : start + PIECE]
        cells = zip(*(_cells(column) for _, column in piece.items()), strict=True)
        yield "\n".join(map(",".join, cells)) + "\n"


def _cells(column: pd.Series[Any]) -> list[str]:
    """A column's cells: each distinct value is written once."""
    codes, values = pd.factorize(column.array)
    written = map("{:.6g}".format, values.tolist()) if is_float_dtype(column.dtype) else map(_cell, values)
    texts = np.array([*written, ""], dtype=object)  # the last one is for what is not there
    cells: list[str] = texts[codes].tolist()
    return cells


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(f"'{value}" if FORMULA.match(value) else value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""')) if STRUCTURE.search(text) else text


def from_csv(table: pd.DataFrame) -> pd.DataFrame:
    """A table as it was before `to_csv`, of one that was just read."""
    return _map_texts(table, lambda text: text[1:] if text.startswith("'") and FORMULA.match(text) else text)


def _map_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    changed = {}
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            texts = {text: change(text) for text in table[name].unique() if isinstance(text, str)}
            if any(text != other for text, other in texts.items()):
                changed[name] = table[name].map(lambda cell, texts=texts: texts.get(cell, cell))
    return table.assign(**changed)


def without_folders(content: Any, known: Iterable[str] = ()) -> Any:
    """A text, or every text in lists and mappings, with absolute paths cut down to their last parts.

    Args:
        content: the text, list or mapping.
        known: absolute paths that may occur; others are recognised as far as they hold no spaces.
    """
    if isinstance(content, Mapping):
        return {key: without_folders(value, known) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_folders(value, known) for value in content]
    if not isinstance(content, str):
        return content
    for path in sorted({*absolute_paths(content), *known}, key=len, reverse=True):
        content = re.sub(rf"(?<![\w.]){re.escape(path)}", lambda match: Path(match.group()).name, content)
    return ABSOLUTE.sub(lambda match: Path(match.group()).name, content)


def absolute_paths(content: Any) -> Iterator[str]:
    """The texts in lists and mappings that are absolute paths."""
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from absolute_paths(value)
    elif isinstance(content, str) and Path(content).is_absolute() and not re.search(r",|: |\n|^/+$", content):
        yield content
