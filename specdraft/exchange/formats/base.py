"""What a format has, and how its numbers are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, ClassVar

import numpy as np

from specdraft.exchange.reading import Reading
from specdraft.exchange.source import ForeignFile

MOST, DEEPEST = 10**15, 10_000  # of what is counted; tokens of a step
NUMBER = r"\d+(?:\.\d+)?"  # as logs print it
NUMBERS = rf"{NUMBER}(?:, {NUMBER})*"


class Format(ABC):
    """A kind of file."""

    kind: ClassVar[str]
    about: ClassVar[str]

    @abstractmethod
    def recognises(self, file: ForeignFile) -> bool:
        """Whether the content is of this kind; of one file only one format says so."""

    @abstractmethod
    def read(self, file: ForeignFile) -> Reading:
        """What it says. Raises `ConfigError` where something in it is not what the format has."""


def number(row: Mapping[str, Any], names: str | Sequence[str], file: ForeignFile, default: float | None = nan) -> float:
    """The first of these keys that a JSON object has, as a number.

    Raises:
        ConfigError: it is no number; or it is not there, and `default` is None.
    """
    listed = [names] if isinstance(names, str) else names
    name = next((name for name in listed if row.get(name) is not None), None)
    if name is None:
        if default is None:
            raise file.refuse(f"has no {listed[0]}; expected a number")
        return default
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST:
        raise file.refuse(f"{name}={value!r} is no number, or out of range")
    return float(value)


def whole_numbers(row: Mapping[str, Any], name: str, file: ForeignFile) -> list[int]:
    """A list of counts under a key; a mapping `{"0": 5, "2": 1}` is one with zeros between.

    Raises:
        ConfigError: it is neither, or holds something else than counts.
    """
    value = row[name]
    if isinstance(value, Mapping):
        try:
            by_place = {int(place): count for place, count in value.items()}
        except ValueError as error:
            raise file.refuse(f"{name} has a key that is no number") from error
        if any(place < 0 for place in by_place) or max(by_place, default=0) > DEEPEST:
            raise file.refuse(f"{name} has a key out of range; expected how many tokens were accepted")
        value = [by_place.get(place, 0) for place in range(max(by_place, default=-1) + 1)]
    if not isinstance(value, list) or not all(type(count) is int and 0 <= count < MOST for count in value):
        raise file.refuse(f"{name} is no list of counts; expected [39, 1, 0, 3]")
    return value


def survival(histogram: Sequence[float]) -> list[float]:
    """`[depth]` share of steps that accept at least so many tokens, of `histogram[n]` steps that accept exactly n."""
    steps = sum(histogram)
    return [sum(histogram[depth:]) / steps for depth in range(1, len(histogram))] if steps else []


def padded(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """`[n, longest]` rows of different lengths, with zeros behind the shorter ones."""
    table = np.zeros((len(rows), max(map(len, rows), default=0)))
    for row, of in zip(table, rows, strict=True):
        row[: len(of)] = of
    return table


def pooled_rates(rates: Sequence[Sequence[float]], steps: Sequence[float]) -> list[float]:
    """`[depth]` the mean of shares of steps, weighted by the steps that each is of."""
    return [float(rate) for rate in np.average(padded(rates), axis=0, weights=steps)] if sum(steps) else []


def pooled_histogram(histograms: Sequence[Sequence[float]]) -> list[float]:
    """`[accepted]` the steps of all of them."""
    return [float(count) for count in padded(histograms).sum(axis=0)]
