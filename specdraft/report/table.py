"""What a table of a report is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import floor, isfinite, log10

from specdraft.report.words import Text
from specdraft.results.intervals import Interval, number

NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?( ?%)?( \[[^\]]*\])?")
DECIMAL = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?|[-+]?\d+e[-+]?\d+")
EMPTY = ("", "–", "?")


class Rounded(str):
    """A number as it is shown; `full` has all digits that are known."""

    __slots__ = ("full",)
    full: str

    def __new__(cls, shown: str, full: str) -> Rounded:
        """Both texts."""
        cell = super().__new__(cls, shown)
        cell.full = full
        return cell


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        rows: texts; a `Rounded` one is copied in full.
        brief: the columns that a Markdown page shows, and the HTML page until it is asked for all; empty for all.
        frozen: how many of the first columns stay in view when the others move.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: Text = ()
    brief: tuple[str, ...] = ()
    frozen: int = 1

    @cached_property
    def numeric(self) -> frozenset[str]:
        """The columns that hold nothing but numbers."""
        return frozenset(name for i, name in enumerate(self.columns) if _is_numeric([row[i] for row in self.rows]))


def full(cell: str) -> str:
    """A cell with all its digits."""
    return cell.full if isinstance(cell, Rounded) else cell


def three_digits(text: str) -> str:
    """A decimal number of a file as it is shown; anything else as it is."""
    if not DECIMAL.fullmatch(text) or not isfinite(value := float(text)):
        return text
    return Rounded(f"{value:.3g}" if abs(value) < 0.1 else f"{value:.{_decimals(value, 3)}f}", text)


def value_cell(value: float, digits: int = 2) -> str:
    """A number that may be missing, with so many decimals unless it is large or small."""
    shown = number(value, _decimals(value, digits) if abs(value) >= 1 else digits)
    return shown if shown in EMPTY else Rounded(shown, f"{value:.6g}")


def interval_cell(interval: Interval, spec: str = "") -> str:
    """A value with its interval, all of it with as many decimals as the value has in `spec`, or three digits."""
    large = abs(interval.value) >= 10
    shown = format(interval, spec or (f".{_decimals(interval.value, 2)}f" if large else ""))
    return shown if shown in EMPTY else Rounded(shown, format(interval, f"{'+' if '+' in spec else ''}.6g"))


def _decimals(value: float, most: int) -> int:
    """After the point, so that there are three digits where the number allows it."""
    return min(most, max(0, 2 - floor(log10(abs(value))))) if value else most


def _is_numeric(cells: Sequence[str]) -> bool:
    said = [cell for cell in cells if cell not in EMPTY]
    return bool(said) and all(NUMBER.fullmatch(cell) for cell in said)
