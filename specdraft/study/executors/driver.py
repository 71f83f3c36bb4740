"""Gives units to workers and takes their events, until nothing is left: what a lost worker was doing is done again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from specdraft.drafters.on_demand import PairOnDemand
from specdraft.errors import ConfigError, LoadError, ResultsError
from specdraft.study.engines.base import Done, Event, Failed, Replayed, Work
from specdraft.study.executors.crew import Broke, Crew, Did, Ended, Lost
from specdraft.study.executors.units import COSTS, DESCRIBE, RECORD, ROWS, Phase, Unit, phases
from specdraft.study.failures import explain
from specdraft.study.progress import Progress

STAGES = {DESCRIBE: ("load", "models"), RECORD: (RECORD, "prompts"), COSTS: (COSTS, "units"), ROWS: (ROWS, "rows")}
MOST_LOSSES = 3  # workers that one unit may cost


@dataclass
class _Unit:
    """A unit on its way.

    Attributes:
        losses: workers that were lost with it.
        rows: (combination, repeat) -> prompts whose rows came already.
    """

    unit: Unit
    losses: int = 0
    rows: dict[tuple[str, int], frozenset[str]] = field(default_factory=dict)

    def took(self, event: Event) -> None:
        """Remember the rows of an event, which are not to be made again."""
        if isinstance(event, Done):
            for row in event.rows:
                self._add((row.combination, row.repeat), frozenset([row.prompt_id]))
        elif isinstance(event, Replayed):
            for rows in event.rows:
                self._add((rows.combination, rows.repeat), frozenset(rows.prompt_ids))
        elif isinstance(event, Failed):
            for key, prompts in self.unit.work.due.items():
                if key[0] == event.combination:
                    self._add(key, prompts)

    def _add(self, key: tuple[str, int], prompts: frozenset[str]) -> None:
        self.rows[key] = self.rows.get(key, frozenset()) | prompts

    @property
    def says(self) -> str:
        """For people: `zoo: 24 rows`."""
        unit, amount = self.unit, self.left.amount
        what = {ROWS: f"{amount} rows", RECORD: f"record {amount} prompts"}.get(unit.kind, unit.kind)
        return f"{unit.work.pair.label}: {what}" + (f", after {self.losses} lost workers" if self.losses else "")

    @property
    def left(self) -> Unit:
        """What is still to do."""
        return self.unit.without(self.rows)


class Driver:
    """See `Executor`: works are run on a crew.

    Args:
        crew: the workers.
        progress: told of the stages, and of workers that are lost.
    """

    def __init__(self, crew: Crew, progress: Progress) -> None:
        self._crew, self._progress, self._idle_losses = crew, progress, 0

    def ready(self, pair: PairOnDemand, live: bool) -> None:
        """See `Executor.ready`: a worker loads a pair that never was."""
        work = Work(pair.files, (), (), {}, 0, 1, with_steps=False)
        for _ in self._run(Phase(DESCRIBE, [Unit(DESCRIBE, "", work)])):
            pass

    def run(self, engine: str, work: Work, pair: PairOnDemand) -> Iterator[Event]:
        """See `Executor.run`."""
        for phase in phases(engine, work, self._crew.seats):
            yield from self._run(phase)

    def _run(self, phase: Phase) -> Iterator[Event]:
        waiting = deque(map(_Unit, phase.units))
        busy: dict[str, _Unit] = {}
        stage, unit = STAGES[phase.kind]
        self._progress.stage(stage, sum(one.amount for one in phase.units), unit)
        try:
            yield from self._work(phase, waiting, busy)
        finally:  # an error of one unit ends the phase: nothing of the others may come into the next one
            for worker in busy:
                self._crew.dismiss(worker)

    def _work(self, phase: Phase, waiting: deque[_Unit], busy: dict[str, _Unit]) -> Iterator[Event]:
        while waiting or busy:
            for worker in self._crew.workers:
                if worker not in busy and waiting:
                    busy[worker] = waiting.popleft()
                    self._crew.send(worker, busy[worker].left)
                    self._tell(busy)
            quiet = True
            for message in self._crew.receive():
                quiet = False
                match message:
                    case Did(worker, event):
                        busy[worker].took(event)
                        yield event
                    case Ended(worker):
                        self._ended(phase, busy.pop(worker))
                        self._tell(busy)
                    case Broke(worker, error):
                        yield from self._broke(busy.pop(worker), error)
                    case Lost(worker, why, True):
                        yield from self._lost(busy.pop(worker), why, waiting)
                    case Lost(worker, why):
                        waiting.extendleft([busy.pop(worker)] if worker in busy else [])
                        self._lost_idle(why)
            if quiet:
                self._tell(busy)

    def _tell(self, busy: Mapping[str, _Unit]) -> None:
        """What each worker is doing, for people."""
        self._progress.workers({name: busy[name].says if name in busy else "waiting" for name in self._crew.workers})

    def _lost_idle(self, why: str) -> None:
        """What a worker was not doing costs no unit anything. Raises `ResultsError` where many end and none does
        anything."""
        self._idle_losses += 1
        if self._idle_losses > MOST_LOSSES * self._crew.seats:
            raise ResultsError(f"workers end as soon as they begin ({why})")

    def _ended(self, phase: Phase, one: _Unit) -> None:
        self._idle_losses = 0
        if phase.kind != ROWS:
            self._progress.done(one.unit.amount)

    def _lost(self, one: _Unit, why: str, waiting: deque[_Unit]) -> Iterator[Event]:
        """Another worker does it; one that costs many workers is given up."""
        one.losses += 1
        if one.losses < MOST_LOSSES:
            self._progress.note(f"a worker was lost ({why}): what it was doing is done again")
            waiting.appendleft(one)
            return
        error = f"{one.losses} workers were lost in the middle of it, the last one: {why}"
        if one.unit.kind == DESCRIBE:
            raise LoadError(error)
        yield from _all_failed(one.left, error)

    def _broke(self, one: _Unit, error: Exception) -> Iterator[Event]:
        """What goes wrong in recording is met again by the rows that need it, which say so."""
        if isinstance(error, ResultsError | LoadError | ConfigError):
            raise error
        if one.unit.kind == ROWS:
            yield from _all_failed(one.left, explain(error))
        elif one.unit.kind == DESCRIBE:
            raise LoadError(str(error)) from error


def _all_failed(unit: Unit, error: str) -> Iterator[Event]:
    rows: dict[str, int] = {}
    for (name, _), prompts in unit.work.due.items():
        rows[name] = rows.get(name, 0) + len(prompts)
    for name, count in rows.items():
        yield Failed(name, None, error, count)
