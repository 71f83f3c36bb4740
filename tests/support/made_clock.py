"""A clock and a load that tests make up."""

from __future__ import annotations

from specdraft.bench.load import Elsewhere, LoadMeter


class Spent:
    """A made-up clock: it goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Meter(LoadMeter):
    """Says what it was told to: what others use of two cores."""

    def __init__(self, used: float = 0.0) -> None:
        self._used = used

    def start(self) -> None:
        """Nothing is read."""

    def elsewhere(self) -> Elsewhere:
        return Elsewhere(self._used, 2)
