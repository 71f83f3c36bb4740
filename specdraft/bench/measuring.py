"""Timing work that is repeated until its median is steady, within an allowance of seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from math import ceil, log, sqrt
from typing import NamedTuple, TypeVar

import numpy as np

from specdraft.traces.watch import UNWATCHED, Watch

FEWEST, MOST = 3, 30  # timings of a quantity, after one that warms up
STEADY = 0.05  # a median is steady when it is known to this share of itself
RATIO = 4  # of neighbouring sizes at most; what lies between them is interpolated

Item = TypeVar("Item")


class Timing(NamedTuple):
    """Seconds that one thing takes: the median and the quartiles of what was timed."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """Out of at least one."""
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
        return cls(median, low, high)


def steady(seconds: list[float]) -> bool:
    """Whether more timings would hardly move the median."""
    if len(seconds) < FEWEST:
        return False
    median, low, high = Timing.of(seconds)
    return high - low <= STEADY * abs(median) * sqrt(len(seconds))


class Allowance:
    """Seconds for timing several quantities: each has an equal share of what is left when its turn comes.

    A quantity is timed once at least, however long that takes.

    Args:
        seconds: for all of them.
        quantities: how many there are.
        watch: told of each that is done.
        now: a clock.
    """

    def __init__(
        self, seconds: float, quantities: int, watch: Watch = UNWATCHED, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._seconds, self._quantities, self._watch, self._now = seconds, quantities, watch, now
        self._left, self._start = quantities, now()
        watch.stage("costs", quantities, "timings")

    def time(self, sample: Callable[[], float]) -> Timing:
        """Time the next quantity; `sample` gives the seconds of it once."""
        until = self._now() + (self._seconds - self.spent_s) / max(self._left, 1)
        first = sample()
        seconds: list[float] = []
        while len(seconds) < MOST and self._now() < until and not steady(seconds):
            seconds.append(sample())
        self._left -= 1
        self._watch.done(1)
        return Timing.of(seconds or [first])

    def skip(self, quantities: int) -> None:
        """Leave the next ones out."""
        self._left -= quantities
        self._watch.done(quantities)

    @property
    def is_behind(self) -> bool:
        """Whether what was timed took more than its share: quantities that can be done without are better left out."""
        return self.spent_s * self._quantities > (self._quantities - self._left) * self._seconds

    @property
    def spent_s(self) -> float:
        """Seconds so far."""
        return self._now() - self._start


def sizes_up_to(largest: int) -> list[int]:
    """1 and `largest` (2 or more), and as few between them as `RATIO` allows, evenly by their logarithms."""
    steps = ceil(log(largest, RATIO))
    return sorted({round(largest ** (step / steps)) for step in range(steps + 1)})


def endless(start: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """What `start` gives, over and over."""
    while True:
        yield from start()
