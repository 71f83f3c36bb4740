"""What a worker does with units: it keeps a pair loaded from one to the next, and says what comes out as events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from specdraft.drafters.on_demand import PairOnDemand
from specdraft.drafters.pair import PairFiles
from specdraft.study.engines.base import Event
from specdraft.study.engines.replay import ReplayEngine
from specdraft.study.executors.units import COSTS, DESCRIBE, RECORD, ROWS, Unit
from specdraft.traces.memory import StoredMemory
from specdraft.traces.store import TraceStore


def _same(one: PairFiles, other: PairFiles) -> bool:
    """Whether two pairs load the same models in the same way."""
    return (one.spec, one.drafter, one.weights) == (other.spec, other.drafter, other.weights)


class Threads(NamedTuple):
    """Of one worker."""

    beside: int
    alone: int


class Worker:
    """One process's share of a study.

    Args:
        store: where it finds traces, and puts them.
        threads: of the processor for forwards beside those of other workers, and where times are measured.
    """

    def __init__(self, store: TraceStore, threads: Threads) -> None:
        from specdraft.study.engines.live import LiveEngine

        self._store, self._threads = store, threads
        self._memory = StoredMemory(self._store)
        self._pair: PairOnDemand | None = None
        self._live, self._replay = LiveEngine(self._store), ReplayEngine(self._store, costs_are_kept=True)

    def run(self, unit: Unit) -> Iterator[Event]:
        """The events of a unit. Raises as `Engine.run`."""
        pair = self._pair_of(unit.work.pair)
        self._set_threads(unit)
        if unit.kind == DESCRIBE:
            pair.describe()
        elif unit.kind == RECORD:
            self._replay.record(unit.work, pair)
        elif unit.kind == COSTS:
            self._replay.measure(unit.work, pair)
        elif unit.engine == "live":
            yield from self._live.run(unit.work, pair)
        else:
            yield from self._replay.run(unit.work, pair)

    def _pair_of(self, files: PairFiles) -> PairOnDemand:
        """The pair that is loaded, where it is this one; the target of another one stays if it is the same."""
        before = self._pair
        if before is not None and _same(before.files, files):
            return before
        if before is not None and before.files.target.spec != files.target.spec:
            before = self._pair = None  # its memory is needed
        self._pair = PairOnDemand(files, self._memory, before)
        return self._pair

    def _set_threads(self, unit: Unit) -> None:
        """Costs are those of so many threads, which says too whose costs rows are estimated with."""
        import torch

        timed = unit.kind == COSTS or (unit.kind == ROWS and unit.engine == "replay")
        torch.set_num_threads(self._threads.alone if timed else self._threads.beside)
