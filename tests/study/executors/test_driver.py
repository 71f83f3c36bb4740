"""The driver gives units to workers that may be lost at any moment: no row is lost, doubled or changed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.engine_runs import study_of, untimed_rows, work_of
from support.tiny_models import PairFolders

from specdraft.errors import LoadError, ResultsError
from specdraft.study.engines.base import Event, Failed, Work
from specdraft.study.executors.crew import Broke, Crew, Did, Ended, Lost, Message
from specdraft.study.executors.driver import MOST_LOSSES, Driver
from specdraft.study.executors.units import COSTS, RECORD, ROWS, Unit, phases
from specdraft.study.executors.worker import Threads, Worker
from specdraft.study.plan import plan_study
from specdraft.study.progress import Progress
from specdraft.traces.handed_over import BorrowingStore, StoreShelf
from specdraft.traces.store import TraceStore

TEXTS = [f"Once upon {n} times" for n in range(5)]
GRID = ["tree=chain,kary,sequoia,best_first-calibrated", "budget=2,4", "cost.measure=off"]
ONE = Threads(1, 1)


class Notes(Progress):
    """What people are told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.doing: list[dict[str, str]] = []

    def note(self, what: str) -> None:
        self.said.append(what)

    def workers(self, doing: Any) -> None:
        self.doing.append(dict(doing))


class FakeCrew(Crew):
    """Workers in this process, one event of each at a time, which are lost as `dies` says.

    Args:
        dies: called with each message before it is handed on; True: the worker is lost instead.
        own: each worker has a folder of its own beside that of the traces, which it does not see.
    """

    def __init__(
        self, traces: Path, dies: Any = lambda unit, message: False, count: int = 2, own: bool = False
    ) -> None:
        self._traces, self._dies, self._own = traces, dies, own
        self._at: dict[str, tuple[Unit, Iterator[Event]] | None] = {}
        self._shared = Worker(TraceStore(traces), ONE)
        self._workers: dict[str, Worker] = {}
        self._number, self._count = 0, count
        self.sent: list[Unit] = []
        for _ in range(count):
            self._hire()

    def _hire(self) -> None:
        self._number += 1
        name = f"w{self._number}"
        self._at[name] = None
        if self._own:
            store = BorrowingStore(self._traces.with_name(f"of-{name}"), StoreShelf(self._traces))
            self._workers[name] = Worker(store, ONE)

    @property
    def seats(self) -> int:
        return self._count

    @property
    def workers(self) -> Sequence[str]:
        return [*self._at]

    def send(self, worker: str, unit: Unit) -> None:
        assert self._at[worker] is None
        self.sent.append(unit)
        self._at[worker] = unit, self._workers.get(worker, self._shared).run(unit)

    def dismiss(self, worker: str) -> None:
        del self._at[worker]
        self._hire()

    def receive(self) -> Iterator[Message]:
        for worker, doing in list(self._at.items()):
            if doing is not None:
                yield self._next(worker, *doing)

    def _next(self, worker: str, unit: Unit, events: Iterator[Event]) -> Message:
        message: Message
        try:
            message = Did(worker, next(events))
        except StopIteration:
            self._at[worker] = None
            message = Ended(worker)
        except Exception as error:
            self._at[worker] = None
            message = Broke(worker, error)
        if self._dies(unit, message):
            del self._at[worker]
            self._hire()
            return Lost(worker, "signal 9", begun=True)
        return message

    def close(self) -> None:
        self._at = {}


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*study_of(tiny_pair_folders, tmp_path_factory.mktemp("prompts"), TEXTS), "max_new_tokens=5"]


@pytest.fixture(scope="module")
def works(base: list[str]) -> dict[str, Work]:
    replayed = plan_study([*base, *GRID])
    live = plan_study([*base, "tree=chain,sequoia", "budget=2,3", "engine=live"])
    return {"replay": work_of(replayed, "replay"), "live": work_of(live, "live")}


@pytest.fixture(scope="module")
def alone(works: dict[str, Work], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What one worker makes of the whole work."""
    worker = Worker(TraceStore(tmp_path_factory.mktemp("traces")), ONE)
    return {name: by_name(worker.run(Unit(ROWS, name, work))) for name, work in works.items()}


def by_name(events: Iterator[Event]) -> list[Any]:
    rows = untimed_rows(events)
    return sorted(rows, key=lambda row: (row["row"], row["repeat"], row["prompt_id"]))


@pytest.mark.parametrize("engine", ["replay", "live"])
def test_workers_make_the_rows_that_one_process_makes(
    works: dict[str, Work], alone: dict[str, list[Any]], tmp_path: Path, engine: str
) -> None:
    notes = Notes()
    driver = Driver(FakeCrew(tmp_path), notes)
    assert by_name(driver.run(engine, works[engine], None)) == alone[engine]  # type: ignore[arg-type]
    assert not notes.said and any(set(doing.values()) != {"waiting"} for doing in notes.doing)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("engine", ["replay", "live"])
def test_lost_workers_lose_nothing(
    works: dict[str, Work], alone: dict[str, list[Any]], tmp_path: Path, engine: str, seed: int
) -> None:
    chance, losses = random.Random(seed), list[Message]()

    def dies(unit: Unit, message: Message) -> bool:
        """Now and then, no more often than a unit survives."""
        if chance.random() < 0.3 and len(losses) < MOST_LOSSES - 1:
            losses.append(message)
            return True
        return False

    notes = Notes()
    rows = by_name(Driver(FakeCrew(tmp_path, dies), notes).run(engine, works[engine], None))  # type: ignore[arg-type]
    assert rows == alone[engine]
    assert len(notes.said) == len(losses) > 0


@pytest.mark.parametrize("engine", ["replay", "live"])
def test_workers_with_folders_of_their_own_make_the_same_rows(
    works: dict[str, Work], alone: dict[str, list[Any]], tmp_path: Path, engine: str
) -> None:
    """One of them is lost in the middle; the one in its place has an empty folder."""
    recorded = list[Message]()

    def dies(unit: Unit, message: Message) -> bool:
        recorded.append(message)
        return len(recorded) == 4

    driver = Driver(FakeCrew(tmp_path / "traces", dies, own=True), Notes())
    assert by_name(driver.run(engine, works[engine], None)) == alone[engine]  # type: ignore[arg-type]
    kept, of_workers = ({path.name for path in tmp_path.glob(f"{folder}/*.json")} for folder in ("traces", "of-*"))
    assert kept == of_workers
    assert len([*tmp_path.glob("of-*")]) == 3
    before = written(tmp_path / "traces")
    used = Driver(FakeCrew(tmp_path / "traces"), Notes()).run(engine, works[engine], None)  # type: ignore[arg-type]
    assert by_name(used) == alone[engine]
    assert written(tmp_path / "traces") == before != {}  # nothing is recorded again


def written(traces: Path) -> dict[Path, int]:
    """When each trace was written, but what is known of models, which whoever loads one says again."""
    there = {path: path.stat().st_mtime_ns for path in traces.glob("*.json")}
    return {path: when for path, when in there.items() if '"kind": "model"' not in path.read_text()}


@pytest.mark.parametrize("engine", ["replay", "live"])
def test_a_worker_that_ends_idle_costs_its_next_unit_nothing(
    works: dict[str, Work], alone: dict[str, list[Any]], tmp_path: Path, engine: str
) -> None:
    """Each unit meets more dead workers than it may cost, none of which had begun it."""

    deaths = Counter[str]()

    class Dying(FakeCrew):
        def receive(self) -> Iterator[Message]:
            for worker, doing in list(self._at.items()):
                if doing is None:
                    continue
                name = repr((doing[0].kind, doing[0].work.due, doing[0].work.prompts))
                deaths[name] += 1
                if deaths[name] <= MOST_LOSSES:
                    del self._at[worker]
                    self._hire()
                    yield Lost(worker, "signal 9", begun=False)
                    continue
                yield from (Did(worker, event) for event in doing[1])
                self._at[worker] = None
                yield Ended(worker)

    notes = Notes()
    assert by_name(Driver(Dying(tmp_path), notes).run(engine, works[engine], None)) == alone[engine]  # type: ignore[arg-type]
    assert set(deaths.values()) == {MOST_LOSSES + 1} and not notes.said


def test_what_is_there_is_not_made_again(works: dict[str, Work], tmp_path: Path) -> None:
    """A worker that is lost behind its first text of several."""
    done, crew = list[str](), FakeCrew(tmp_path, count=1)

    def dies(unit: Unit, message: Message) -> bool:
        if unit.kind == ROWS and isinstance(message, Did):
            done.append("row")
            return len(done) == 3
        return False

    crew._dies = dies
    for _ in Driver(crew, Notes()).run("live", works["live"], None):  # type: ignore[arg-type]
        pass
    rows = [unit for unit in crew.sent if unit.kind == ROWS]
    cut = phases("live", works["live"], 1)[-1].units
    assert len(rows) == len(cut) + 1  # one was sent again
    again = next(place for place, unit in enumerate(rows) if unit.work.due not in [one.work.due for one in cut])
    assert rows[again].amount == rows[again - 1].amount - 2  # the third was lost on its way


def test_a_unit_that_costs_many_workers_fails_alone(works: dict[str, Work], tmp_path: Path) -> None:
    work = works["replay"]
    cursed = next(iter(work.due))[0]

    def dies(unit: Unit, message: Message) -> bool:
        return unit.kind == ROWS and any(name == cursed for name, _ in unit.work.due)

    events = [*Driver(FakeCrew(tmp_path, dies), Notes()).run("replay", work, None)]  # type: ignore[arg-type]
    failed = [event for event in events if isinstance(event, Failed)]
    assert cursed in {event.combination for event in failed}
    assert all("3 workers were lost in the middle of it, the last one: signal 9" in event.error for event in failed)
    made = {(row["row"], row["prompt_id"]) for row in untimed_rows(iter(events))}
    assert len(made) + sum(event.rows for event in failed) == sum(map(len, work.due.values()))


def test_a_model_that_cannot_be_loaded_is_said(works: dict[str, Work], tmp_path: Path) -> None:
    class Broken(FakeCrew):
        def receive(self) -> Iterator[Message]:
            for message in super().receive():
                yield Broke(message.worker, LoadError("no such file")) if isinstance(message, Ended) else message

    with pytest.raises(LoadError, match="no such file"):
        [*Driver(Broken(tmp_path), Notes()).run("replay", works["replay"], None)]  # type: ignore[arg-type]


def test_workers_that_never_begin_end_the_study(works: dict[str, Work], tmp_path: Path) -> None:
    class Stillborn(FakeCrew):
        def send(self, worker: str, unit: Unit) -> None:
            pass

        def receive(self) -> Iterator[Message]:
            yield Lost("w1", "exit code 1", begun=False)
            yield Lost("nobody", "exit code 1", begun=False)

    with pytest.raises(ResultsError, match="workers end as soon as they begin"):
        [*Driver(Stillborn(tmp_path), Notes()).run("replay", works["replay"], None)]  # type: ignore[arg-type]


def test_units_of_a_phase_wait_for_the_one_before(works: dict[str, Work], base: list[str], tmp_path: Path) -> None:
    crew = FakeCrew(tmp_path)
    kinds, open_units = list[str](), set[str]()

    def watch(unit: Unit, message: Message) -> bool:
        open_units.discard(message.worker) if not isinstance(message, Did) else open_units.add(message.worker)
        return False

    crew._dies = watch
    for _ in Driver(crew, Notes()).run("replay", works["replay"], None):  # type: ignore[arg-type]
        pass
    kinds = [unit.kind for unit in crew.sent]
    assert kinds == sorted(kinds, key=[RECORD, COSTS, ROWS].index)


def test_an_error_of_one_unit_leaves_nothing_of_the_others_behind(works: dict[str, Work], tmp_path: Path) -> None:
    """The next pair's units meet workers that have nothing to say of this one."""
    broke = list[str]()

    class Once(FakeCrew):
        def receive(self) -> Iterator[Message]:
            for message in super().receive():
                if not broke and isinstance(message, Did):
                    broke.append(message.worker)
                    self._at[message.worker] = None
                    yield Broke(message.worker, LoadError("out of memory"))
                else:
                    yield message

    crew = Once(tmp_path)
    driver = Driver(crew, Notes())
    with pytest.raises(LoadError, match="out of memory"):
        [*driver.run("live", works["live"], None)]  # type: ignore[arg-type]
    assert all(doing is None for doing in crew._at.values()) and len(crew.workers) == 2
    rows = untimed_rows(driver.run("live", works["live"], None))  # type: ignore[arg-type]
    assert len(rows) == sum(map(len, works["live"].due.values()))


def test_a_worker_loads_the_pair_that_is_meant(base: list[str], tmp_path: Path) -> None:
    """Two pairs that differ in nothing but how the target is read are two."""
    precise, rough = (
        work_of(plan_study([*base, "tree=chain", "budget=2", "drafter=ngram", f"pair.target.dtype={dtype}"]), "replay")
        for dtype in ("float32", "bfloat16")
    )
    worker = Worker(TraceStore(tmp_path), ONE)
    dtypes = [str(worker._pair_of(work.pair).target.dtype) for work in (precise, rough, precise)]
    assert dtypes == ["torch.float32", "torch.bfloat16", "torch.float32"]
