"""What an executor is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from specdraft.drafters.on_demand import PairOnDemand
from specdraft.study.engines.base import Event, Work

ENGINES = ("replay", "live")  # in the order in which they run


class Executor(Protocol):
    """Runs the engines on works."""

    def ready(self, pair: PairOnDemand, live: bool) -> None:
        """Make a pair known from its files before its first work; `live`: it is going to decode. Raises `LoadError`."""

    def run(self, engine: str, work: Work, pair: PairOnDemand) -> Iterator[Event]:
        """The events of a work. Raises as `Engine.run`.

        Args:
            engine: one of `ENGINES`.
            work: what to do.
            pair: `work.pair`, whose weights are read where they are needed.
        """
        ...
