"""Everything in this process: `executor=local`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from specdraft.drafters.on_demand import PairOnDemand
from specdraft.study.engines.base import Engine, Event, Work
from specdraft.study.engines.replay import ReplayEngine
from specdraft.study.progress import Progress
from specdraft.traces.store import TraceStore


class Local:
    """See `Executor`; replay from traces that are there does without torch.

    Args:
        store: where traces are kept.
        progress: told of every stage.
    """

    def __init__(self, store: TraceStore, progress: Progress) -> None:
        self._store, self._progress = store, progress

    def ready(self, pair: PairOnDemand, live: bool) -> None:
        """See `Executor.ready`: what decodes is loaded at once."""
        if live:
            pair.load()

    def run(self, engine: str, work: Work, pair: PairOnDemand) -> Iterator[Event]:
        """See `Executor.run`."""
        made: Engine = self._live if engine == "live" else ReplayEngine(self._store, watch=self._progress)
        return made.run(work, pair)

    @cached_property
    def _live(self) -> Engine:
        """One for all pairs: it remembers what their targets make of the prompts alone."""
        from specdraft.study.engines.live import LiveEngine

        return LiveEngine(self._store, watch=self._progress)
