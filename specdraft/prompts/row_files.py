"""A prompt file's rows, whatever it is written as: JSONL, one JSON list, Parquet, each also with gzip."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from specdraft.errors import PromptError

ENDINGS = (".jsonl", ".json", ".parquet", ".gz")
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"  # what such files begin with


class Row(NamedTuple):
    """One row.

    Attributes:
        where: the file and line, for errors.
        number: from 1.
        value: what it holds.
    """

    where: str
    number: int
    value: Any


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a file. Raises `PromptError` where it cannot be read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PromptError(f"prompts.path={path}: {error.strerror or error}") from error
    if raw.startswith(GZIP):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise PromptError(f"prompts.path={path}: not a whole gzip file: {error}") from error
    if raw.startswith(PARQUET):
        return _rows_of_parquet(path, raw)
    text = _text(path, raw)
    if text.lstrip().startswith("["):
        listed = enumerate(_parsed(str(path), text), start=1)
        return (Row(f"{path}, item {number}", number, value) for number, value in listed)
    return rows_of_lines(str(path), text.split("\n"))


def rows_of_lines(source: str, lines: Iterable[str]) -> Iterator[Row]:
    """The rows of JSONL text; `source` is its name, for errors."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Row(f"{source}, line {number}", number, _parsed(source, line, number))


def _text(path: Path, raw: bytes) -> str:
    encoding = json.detect_encoding(raw)
    if not encoding.startswith("utf-8"):
        name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
        raise PromptError(
            f"prompts.path={path}: is {name} text; expected UTF-8 (iconv -f {name} -t UTF-8 writes it anew)"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"prompts.path={path}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def _rows_of_parquet(path: Path, raw: bytes) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(pa.BufferReader(raw)).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise PromptError(f"prompts.path={path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return (Row(f"{path}, row {number}", number, value) for number, value in enumerate(rows, start=1))


def _parsed(source: str, text: str, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"{source}, line {first_line + error.lineno - 1}"
        raise PromptError(f"{line}: not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise PromptError(f"{source}, line {first_line}: not a prompt: nested too deeply") from error
