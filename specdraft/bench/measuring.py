"""Timing several things in turns, round after round, until the median of each is steady or time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np

from specdraft.traces.watch import UNWATCHED, Watch

FEWEST, MOST = 5, 40  # rounds, after one that warms up
LEAST_ROUNDS_S = 1.0  # of rounds, however steady: in less, nobody sees what else the processor does
STEADY = 0.05  # a median is steady when it is known to this share of itself
APART = 0.1  # two things that differ by less are not told apart, however small their spread
MIDDLE = 1.349  # standard deviations between the quartiles of a normal distribution


class Timing(NamedTuple):
    """Seconds that one thing takes: the median and the quartiles of what was timed."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Out of at least one."""
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
        return cls(median, low, high)

    def plus(self, other: Timing) -> Timing:
        """Of both, one after the other."""
        return Timing(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, count: int) -> Timing:
        """Of so many, one after the other."""
        return Timing(*(count * value for value in self))

    def less(self, seconds: float, parts: int = 1) -> Timing:
        """One of so many equal parts of what is left after these seconds; never less than nothing."""
        return Timing(*(max(value - seconds, 0.0) / parts for value in self))

    def exceeds(self, other: Timing) -> bool:
        """Whether this took longer than the other by more than their spread."""
        return self.low > other.high and self.median > (1 + APART) * other.median

    def differs(self, other: Timing) -> bool:
        """Whether the two are apart by more than their spread."""
        return self.exceeds(other) or other.exceeds(self)


@dataclass(frozen=True)
class Cell:
    """One thing that is timed.

    Attributes:
        quantity: what it is, and of how many tokens, if that matters.
        sample: does it once and gives its seconds; it finds everything as it leaves it.
        spare: can be left out where there is little time.
        varies: its seconds differ for reasons of their own: nobody waits until they are steady.
        most: rounds in which it is timed.
    """

    quantity: str
    sample: Callable[[], float]
    size: int = 0
    spare: bool = False
    varies: bool = False
    most: int = MOST


@dataclass(frozen=True)
class Timed:
    """A cell and its seconds in each round; of one that was too slow for a round, those of its warm-up."""

    cell: Cell
    seconds: list[float]

    @property
    def timing(self) -> Timing:
        """Median and quartiles."""
        return Timing.of(self.seconds)

    @property
    def is_steady(self) -> bool:
        """Whether nothing is gained by further rounds."""
        return self.cell.varies or len(self.seconds) >= self.cell.most or steady(self.seconds)


def deviation(low: float, high: float) -> float:
    """The standard deviation of what lies between these quartiles, if it is normal."""
    return (high - low) / MIDDLE


def steady(seconds: Sequence[float]) -> bool:
    """Whether more timings would hardly move the median."""
    if len(seconds) < FEWEST:
        return False
    median, low, high = Timing.of(seconds)
    return high - low <= STEADY * abs(median) * sqrt(len(seconds))


def in_turns(
    cells: Sequence[Cell],
    limit_s: float,
    watch: Watch = UNWATCHED,
    now: Callable[[], float] = time.perf_counter,
    begin: Callable[[], None] = lambda: None,
) -> list[Timed]:
    """Time cells in turns: what disturbs the machine for a while meets all of them alike.

    Every cell is warmed first, those that are needed before the spare ones; then rounds go through the cells, every
    other one backwards, until all medians are steady or time is over. Each is timed once at least.

    Args:
        cells: in the order in which a round takes them.
        limit_s: seconds for all of it.
        watch: told how far it is.
        now: a clock.
        begin: called when everything is warm.
    """
    started = now()
    watch.stage("costs", len(cells) * (1 + MOST), "timings")
    warm = {}
    for place in sorted(range(len(cells)), key=lambda place: cells[place].spare):
        if not cells[place].spare or now() - started < limit_s / 2:
            warm[place] = cells[place].sample()
    watch.done(len(cells))
    begin()
    timed = [Timed(cells[place], []) for place in sorted(warm)]
    rounds, first = 0, now()
    while rounds < MOST and _worth_going_on(timed, now() - started, limit_s, now() - first):
        for each in timed if rounds % 2 == 0 else timed[::-1]:
            if len(each.seconds) < each.cell.most:
                each.seconds.append(each.cell.sample())
        rounds += 1
        watch.done(len(cells))
    watch.done(len(cells) * (MOST - rounds))
    return [Timed(t.cell, t.seconds or [warm[place]]) for place, t in zip(sorted(warm), timed, strict=True)]


def _worth_going_on(timed: Sequence[Timed], spent_s: float, limit_s: float, in_rounds_s: float) -> bool:
    """Whether another round fits into the time, and would tell anything."""
    rounds = max(len(each.seconds) for each in timed)
    a_round_s = in_rounds_s / rounds if rounds else spent_s
    if spent_s + a_round_s > limit_s:
        return False
    return in_rounds_s < LEAST_ROUNDS_S or not all(each.is_steady for each in timed)


def sizes_up_to(largest: int) -> list[int]:
    """The powers of two up to `largest` (2 or more), and `largest`: kernels change their ways there."""
    return sorted({largest, *(2**power for power in range(largest.bit_length()))})
