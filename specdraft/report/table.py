"""What a table of a report is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specdraft.report.words import Text


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        brief: the columns that a Markdown page shows; empty for all.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: Text = ()
    brief: tuple[str, ...] = ()
