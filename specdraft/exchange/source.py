"""A file that somebody else's program wrote, as far as it can be read without knowing its kind."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specdraft.errors import ConfigError

Row = dict[str, Any]
TORN, COLOURS = "\ufffd", re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class ForeignFile:
    """What a file holds.

    Attributes:
        text: all of it.
        whole: the JSON document that it is; None where it is none.
        rows: the objects that it holds: the document, its elements, or one a line (JSON Lines).
    """

    path: Path
    text: str
    whole: Any = None
    rows: list[Row] = field(default_factory=list)

    def refuse(self, why: str) -> ConfigError:
        """An error that names the file."""
        return ConfigError(f"{self.path}: {why}")


def read_foreign(path: Path) -> ForeignFile:
    """Read a file of an unknown kind. Raises `ConfigError` where it is missing, empty, or no text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if not content.strip():
        raise ConfigError(f"{path}: is empty; expected figures of an engine (specdraft help exchange)")
    text = COLOURS.sub("", content.decode("utf-8-sig", errors="replace"))  # logs hold torn characters
    if "\0" in text or text.count(TORN) * 10 > len(text):
        raise ConfigError(f"{path}: is binary, or text in UTF-16; expected a log, JSON or metrics in UTF-8")
    whole = _json(text)
    return ForeignFile(path, text, whole, _rows(path, text, whole))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _rows(path: Path, text: str, whole: Any) -> list[Row]:
    if isinstance(whole, dict):
        return [whole]
    if isinstance(whole, list):
        return [row for row in whole if isinstance(row, dict)]
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not isinstance(_json(lines[0][1]), dict):
        return []
    rows = []
    for number, line in lines:
        row = _json(line)
        if not isinstance(row, dict):
            raise ConfigError(f"{path}: line {number} is no JSON object, as the first line is")
        rows.append(row)
    return rows
