"""Workers of Ray as the driver sees them; a stand-in for Ray, whose actors are here, come and go as a test says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from specdraft.cli import Stopped
from specdraft.config import Settings
from specdraft.config.settings import ResourceSpec
from specdraft.errors import ConfigError, ResultsError
from specdraft.study import executors
from specdraft.study.executors import on_ray
from specdraft.study.executors.crew import Did, Ended, Lost
from specdraft.study.executors.on_ray import RayCrew
from specdraft.study.executors.ray_hand import Hand, store_beside
from specdraft.study.executors.worker import Threads
from specdraft.study.progress import Progress
from specdraft.traces.handed_over import BorrowingStore, StoreShelf
from specdraft.traces.store import TraceStore

ONE = Threads(1, 1)
UNIT: Any = SimpleNamespace(kind="rows")


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class RayTaskError(RayError):
    cause = None


class RaySystemError(RayError):
    pass


class Actor:
    """One actor: `there` once it has a node, `dead` once it is lost."""

    def __init__(self, number: int) -> None:
        self.number, self.there, self.dead, self.killed = number, True, False, False
        self.says: list[Any] = ["begun", "row", "row"]
        self.versions = on_ray.versions()
        self.about = SimpleNamespace(remote=lambda: Answer(self, lambda: self.versions))
        self.work = SimpleNamespace(options=lambda **told: SimpleNamespace(remote=lambda unit: Events(self)))


class Answer:
    def __init__(self, actor: Actor, said: Callable[[], Any]) -> None:
        self.actor, self.said = actor, said

    @property
    def ready(self) -> bool:
        return self.actor.there or self.actor.dead

    def get(self) -> Any:
        if self.actor.dead:
            raise RayActorError("the actor died")
        return self.said()


class Events(Answer):
    """Of a unit, one by one."""

    def __init__(self, actor: Actor) -> None:
        super().__init__(actor, lambda: None)
        self.left = list(actor.says)

    def __next__(self) -> Answer:
        if not self.left and not self.actor.dead:
            raise StopIteration
        said = self.left.pop(0) if self.left else None
        return Answer(self.actor, lambda: said)


class FakeRay(ModuleType):
    """What of Ray is used."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(
            RayError=RayError, RayActorError=RayActorError, RayTaskError=RayTaskError, RaySystemError=RaySystemError
        )
        self.actors: list[Actor] = []
        self.resources, self.nodes, self.told = {"CPU": 2.0}, 99, {}
        self.begun: dict[str, Any] = {}

    def init(self, **told: Any) -> None:
        self.begun = told

    def shutdown(self) -> None:
        self.begun = {}

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, made: type) -> Any:
        def options(**told: Any) -> Any:
            self.told = told
            return SimpleNamespace(remote=self._new)

        return SimpleNamespace(options=options)

    def _new(self, *given: Any) -> Actor:
        self.actors.append(Actor(len(self.actors) + 1))
        self.actors[-1].there = sum(not actor.killed for actor in self.actors) <= self.nodes
        return self.actors[-1]

    def kill(self, actor: Actor) -> None:
        actor.killed = actor.dead = True

    def wait(self, waited: Sequence[Answer], **told: Any) -> tuple[list[Answer], list[Answer]]:
        return [one for one in waited if one.ready][:1], []

    def get(self, answer: Answer) -> Any:
        return answer.get()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def crew_of(traces: Path, workers: int = 2, **given: Any) -> RayCrew:
    return RayCrew(workers, traces, ONE, given.get("gpus"), given.get("address"))


def told(crew: RayCrew, count: int) -> list[Any]:
    return [message for _ in range(count) for message in crew.receive()]


def test_a_unit_is_given_only_to_workers_that_are_there(ray: FakeRay, tmp_path: Path) -> None:
    ray.nodes = 1
    crew = crew_of(tmp_path)
    assert crew.seats == 2 and [*crew.workers] == ["actor-1"]
    crew.send("actor-1", UNIT)
    ray.actors[1].there = True
    assert [type(message) for message in told(crew, 5)] == [Did, Did, Ended]
    assert [*crew.workers] == ["actor-1", "actor-2"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_lost_worker_says_whether_it_had_begun(ray: FakeRay, tmp_path: Path, begun: bool) -> None:
    ray.nodes = 2
    crew = crew_of(tmp_path)
    told(crew, 2)
    crew.send("actor-2", UNIT)
    if begun:
        told(crew, 1)
    ray.actors[1].dead = True
    (lost,) = told(crew, 1)
    assert lost == Lost("actor-2", "actor-2: the actor died", begun)
    assert ray.actors[1].killed and len(ray.actors) == 3  # another one is hired
    told(crew, 1)
    assert [*crew.workers] == ["actor-1", "actor-3"]


def test_a_node_that_never_comes_back_is_done_without(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = crew_of(tmp_path)
    told(crew, 2)
    ray.nodes = 0
    for worker in crew.workers:
        crew.dismiss(worker)
    assert told(crew, 3) == [] and not crew.workers
    monkeypatch.setattr(on_ray, "ALONE_S", -1.0)
    with pytest.raises(ResultsError, match=r"executor=ray: no worker for -1 s; the cluster has \{'CPU': 2.0\}"):
        told(crew, 1)


def test_a_worker_of_another_version_is_refused_whenever_it_comes(ray: FakeRay, tmp_path: Path) -> None:
    ray.nodes = 1
    crew = crew_of(tmp_path)
    ray.actors[1].there, ray.actors[1].versions = True, on_ray.versions() | {"torch": "1.0"}
    with pytest.raises(ConfigError, match=r"executor=ray: a worker has torch 1\.0, and here is"):
        told(crew, 1)


def test_what_is_asked_of_ray(ray: FakeRay, tmp_path: Path) -> None:
    """A target over two cards takes two of each worker; a cluster that is there is not joined unasked."""
    ray.resources |= {"GPU": 4.0}
    settings = Settings(executor="ray", resources=ResourceSpec(workers=2, gpus=2))
    crew_of(tmp_path, gpus=settings.resources.gpus_of_worker)
    assert ray.told["num_gpus"] == 2 and ray.begun["address"] == "local"
    with pytest.raises(
        ConfigError, match=r"resources\.gpus=2 \(or .*\) for 3 workers makes 6 graphics cards; the cluster has 4"
    ):
        crew_of(tmp_path, 3, gpus=2)
    assert ray.begun == {}  # nothing is left running


def test_ctrl_c_in_the_middle_of_a_call_is_ctrl_c(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(*waited: Any, **told: Any) -> Any:
        raise SystemError("returned a result with an exception set") from Stopped(2)

    monkeypatch.setattr(executors, "_crew", lambda settings, store: crew_of(tmp_path))
    plan: Any = SimpleNamespace(settings=Settings(executor="ray"))
    with pytest.raises(Stopped), executors.executor_of(plan, TraceStore(tmp_path), Progress()) as driver:
        ray.wait = wait  # type: ignore[method-assign]
        driver.ready(SimpleNamespace(files=SimpleNamespace(label="zoo")), live=False)  # type: ignore[arg-type]
    assert all(actor.killed for actor in ray.actors)


@pytest.fixture
def shelf(tmp_path: Path) -> StoreShelf:
    (tmp_path / "driver").mkdir()
    return StoreShelf(tmp_path / "driver")


def test_a_shared_folder_is_found_under_either_name(
    shelf: StoreShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPECDRAFT_TRACES", raising=False)
    assert type(store_beside(tmp_path / "driver", shelf)) is TraceStore
    (tmp_path / "mounted").symlink_to(tmp_path / "driver")
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "mounted"))
    found = store_beside(tmp_path / "driver", shelf)
    assert type(found) is TraceStore and found.folder == tmp_path / "mounted"
    assert not any((tmp_path / "driver").iterdir())


@pytest.mark.parametrize("there", [True, False])
def test_a_worker_that_does_not_see_the_folder_has_its_own(
    shelf: StoreShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    own = tmp_path / "own"
    if there:
        own.mkdir()
    monkeypatch.setenv("SPECDRAFT_TRACES", str(own))
    found = store_beside(tmp_path / "driver", shelf)
    assert isinstance(found, BorrowingStore) and found.folder == own
    assert not there or not any(own.iterdir())


def test_a_unit_begins_before_anything_else(shelf: StoreShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand(tmp_path / "driver", ONE)
    events: Iterator[Any] = hand.work(UNIT)
    assert next(events) == "begun"
