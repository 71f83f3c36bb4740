"""Workers that are actors of Ray, on this machine or on a cluster: `executor=ray`."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from specdraft.errors import ConfigError, ResultsError
from specdraft.models.files import first_line
from specdraft.models.placement import device_type
from specdraft.models.spec import ModelSpec
from specdraft.study.engines.base import Event
from specdraft.study.executors.crew import Broke, Crew, Did, Ended, Lost, Message
from specdraft.study.executors.units import Unit
from specdraft.study.executors.worker import Threads, Worker
from specdraft.traces.store import libraries

WAIT_S = 0.5
BEGIN_S = 300.0  # for the first worker to be there
MOST_LOSSES = 3  # of each worker before one is there
TOO_FEW = "executor=ray: {what}; the cluster has {there}"


def versions() -> dict[str, str]:
    """What must be equal of driver and workers: a unit is sent as Python's own objects, traces name libraries, and what
    a pair is called depends on the kind of device that it is on."""
    python = ".".join(platform.python_version_tuple()[:2])
    device = {"a device of the kind": device_type(ModelSpec("zoo:target"))}
    return {"Python": python, "specdraft": version("specdraft"), **libraries(), **device}


def compare(ours: dict[str, str], theirs: dict[str, str]) -> None:
    """Raise `ConfigError` where a worker differs from the driver."""
    for name, here in ours.items():
        if theirs.get(name) != here:
            raise ConfigError(f"executor=ray: a worker has {name} {theirs.get(name)}, and here is {here}")


class Hand:
    """One worker: an actor.

    Args:
        traces: the folder of traces.
        threads: of its forwards.
        expected: the driver's versions.
    """

    def __init__(self, traces: Path, threads: Threads, expected: dict[str, str]) -> None:
        self._traces, self._worker, self._expected = traces, Worker(traces, threads), expected

    def about(self, mark: str) -> tuple[dict[str, str], bool]:
        """Its versions, and whether it sees the driver's folder of traces, which has a file of this name."""
        return versions(), (self._traces / mark).exists()

    def work(self, unit: Unit) -> Iterator[Event]:
        """The events of a unit, one by one. Raises `ConfigError` where this worker is another than the driver."""
        compare(self._expected, versions())
        for event in self._worker.run(unit):  # noqa: UP028  (Ray sends into the generator, and would do so here)
            yield event


class RayCrew(Crew):
    """So many actors. One whose node is gone waits for another node.

    Args:
        workers: how many; None: as many as the cluster has room for.
        traces: the folder of traces, which every node sees.
        threads: of each.
        gpus: graphics cards of each; None: one, where the cluster has any.
        address: of a cluster; None: one on this machine is begun, and ended with the study.

    Raises:
        ConfigError: the cluster does not answer, has too little, or its workers are of another version or do not see
            the traces.
    """

    def __init__(
        self, workers: int | None, traces: Path, threads: Threads, gpus: int | None, address: str | None
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError("executor=ray needs the package ray: pip install 'specdraft[ray]'") from error
        self._ray, self._traces = ray, traces
        self._begin((workers or 1) * threads.beside, address)
        workers, gpus = self._room(workers, gpus, threads.beside)
        told = {"num_cpus": threads.beside, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._made = ray.remote(Hand).options(**told)
        self._given = (traces, threads, versions())
        self._hands: dict[str, Any] = {}
        self._coming: dict[str, Any] = {}  # worker -> the events of its unit, as they come
        self._number = 0
        for _ in range(workers):
            self._hire()
        try:
            self._meet()
        except BaseException:
            self.close()
            raise

    def _begin(self, cpus: int, address: str | None) -> None:
        where = {"address": address} if address else {"num_cpus": cpus, "include_dashboard": False}
        try:
            self._ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise ConfigError(f"resources.address={address}: no cluster answers there ({first_line(error)})") from error

    def _room(self, workers: int | None, gpus: int | None, cpus: int) -> tuple[int, int]:
        """Workers, and graphics cards of each. Raises `ConfigError` where the cluster has too few cards."""
        there = self._ray.cluster_resources()
        cards = int(there.get("GPU", 0))
        each = min(1, cards) if gpus is None else gpus
        count = workers or max(1, cards // each if each else int(there.get("CPU", 1)) // cpus)
        if (needed := count * each) > cards:
            self._ray.shutdown()
            what = f"resources.gpus={each} for {count} workers wants {needed} graphics cards"
            raise ConfigError(TOO_FEW.format(what=what, there=cards))
        return count, each

    def _meet(self) -> None:
        """See that the first worker that comes can be worked with; one that is lost meanwhile is replaced."""
        mark = f".seen-{uuid4().hex}"
        self._traces.mkdir(parents=True, exist_ok=True)
        (self._traces / mark).touch()
        try:
            asked = {hand.about.remote(mark): worker for worker, hand in self._hands.items()}
            most, until = len(asked) * MOST_LOSSES, time.monotonic() + BEGIN_S
            while asked:
                for answer in self._ray.wait([*asked], num_returns=1, timeout=WAIT_S)[0]:
                    worker = asked.pop(answer)
                    try:
                        return self._compare(*self._ray.get(answer))
                    except self._ray.exceptions.RayActorError as error:
                        most -= 1
                        if most <= 0:
                            raise ConfigError(f"executor=ray: no worker can begin: {first_line(error)}") from error
                        self._ray.kill(self._hands.pop(worker))
                        asked[self._hire().about.remote(mark)] = f"actor-{self._number}"
                if time.monotonic() > until:
                    there = {name: n for name, n in self._ray.cluster_resources().items() if name in ("CPU", "GPU")}
                    raise ConfigError(TOO_FEW.format(what=f"no worker has begun after {BEGIN_S:.0f} s", there=there))
        except self._ray.exceptions.RayError as error:
            raise ConfigError(f"executor=ray: a worker cannot begin: {first_line(error)}") from error
        finally:
            (self._traces / mark).unlink(missing_ok=True)

    def _compare(self, theirs: dict[str, str], sees: bool) -> None:
        compare(versions(), theirs)
        if not sees:
            raise ConfigError(
                f"executor=ray: a worker does not see the folder of traces {self._traces}; expected one that all nodes "
                "share (SPECDRAFT_TRACES names it)"
            )

    @property
    def workers(self) -> Sequence[str]:
        """See `Crew.workers`."""
        return [*self._hands]

    def _hire(self) -> Any:
        self._number += 1
        hand = self._hands[f"actor-{self._number}"] = self._made.remote(*self._given)
        return hand

    def send(self, worker: str, unit: Unit) -> None:
        """See `Crew.send`."""
        self._coming[worker] = self._hands[worker].work.options(num_returns="streaming").remote(unit)

    def dismiss(self, worker: str) -> None:
        """See `Crew.dismiss`."""
        self._ray.kill(self._hands.pop(worker))
        del self._coming[worker]
        self._hire()

    def receive(self) -> Iterator[Message]:
        """See `Crew.receive`."""
        by_coming = {coming: worker for worker, coming in self._coming.items()}
        try:
            ready, _ = self._ray.wait([*by_coming], num_returns=1, timeout=WAIT_S, fetch_local=False)
        except self._ray.exceptions.RaySystemError as error:
            raise ResultsError(f"executor=ray: the cluster is gone: {first_line(error)}") from error
        for coming in ready:
            yield self._read(by_coming[coming], coming)

    def _read(self, worker: str, coming: Any) -> Message:
        gone = (self._ray.exceptions.RayActorError, self._ray.exceptions.NodeDiedError,
                self._ray.exceptions.ObjectLostError, self._ray.exceptions.WorkerCrashedError)  # fmt: skip
        try:
            event: Event = self._ray.get(next(coming))
        except StopIteration:
            del self._coming[worker]
            return Ended(worker)
        except gone as error:
            return self._lose(worker, error)
        except self._ray.exceptions.RayTaskError as error:
            del self._coming[worker]
            return Broke(worker, error.cause if isinstance(error.cause, Exception) else error)
        return Did(worker, event)

    def _lose(self, worker: str, error: Exception) -> Lost:
        self.dismiss(worker)
        return Lost(worker, f"{worker}: {first_line(error)}")

    def close(self) -> None:
        """See `Crew.close`; a cluster that was there before stays."""
        for hand in self._hands.values():
            self._ray.kill(hand)
        self._hands, self._coming = {}, {}
        self._ray.shutdown()
