"""Workers that are actors of Ray, on this machine or on a cluster: `executor=ray`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from specdraft.errors import ConfigError, ResultsError
from specdraft.models.files import first_line
from specdraft.study.executors.crew import BEGUN, Broke, Crew, Did, Ended, Lost, Message
from specdraft.study.executors.ray_hand import Hand, compare, versions
from specdraft.study.executors.units import Unit
from specdraft.study.executors.worker import Threads
from specdraft.traces.handed_over import StoreShelf

WAIT_S = 0.5
BEGIN_S = 300.0  # for the first worker to be there
ALONE_S = 900.0  # without any worker, once one was there
MOST_LOSSES = 3  # of each worker before one is there
TOO_FEW = "executor=ray: {what}; the cluster has {there}"


class _Called(NamedTuple):
    """A worker that was hired and has not answered yet: its node may be still to come."""

    worker: str
    hand: Any


class RayCrew(Crew):
    """So many actors. One whose node is gone waits for another node; the others go on without it.

    Args:
        workers: how many; None: as many as the cluster has room for.
        traces: the folder of traces; workers on nodes that do not see it are handed what they need.
        threads: of each.
        gpus: graphics cards of each; None: one, where the cluster has any.
        address: of a cluster; None: one on this machine is begun, and ended with the study.

    Raises:
        ConfigError: the cluster does not answer, has too little, or its workers are of another version.
    """

    def __init__(
        self, workers: int | None, traces: Path, threads: Threads, gpus: int | None, address: str | None
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError("executor=ray needs the package ray: pip install 'specdraft[ray]'") from error
        self._ray, self._traces = ray, traces
        self._hands: dict[str, Any] = {}  # those that are there
        self._called: dict[Any, _Called] = {}  # answer to come -> who gives it
        self._coming: dict[str, Any] = {}  # worker -> the events of its unit, as they come
        self._begun: set[str] = set()
        self._number, self._shelf = 0, None
        self._begin((workers or 1) * threads.beside, address)
        try:
            self._seats, gpus = self._room(workers, gpus, threads.beside)
            self._shelf = self._new_shelf() if address else None
            told = {"num_cpus": threads.beside, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
            self._made = ray.remote(Hand).options(**told)
            self._given, self._versions = (traces, threads, self._shelf), versions()
            for _ in range(self._seats):
                self._hire()
            self._meet()
        except BaseException:
            self.close()
            raise
        self._there = time.monotonic()  # when a worker was there last

    def _begin(self, cpus: int, address: str | None) -> None:
        begun = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        where = {"address": address} if address else begun
        try:
            self._ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            what = f"resources.address={address}: no cluster answers there"
            problem = what if address else "executor=ray: no cluster can be begun here"
            raise ConfigError(f"{problem} ({first_line(error)})") from error

    def _room(self, workers: int | None, gpus: int | None, cpus: int) -> tuple[int, int]:
        """Workers, and graphics cards of each. Raises `ConfigError` where the cluster has too few cards."""
        there = self._ray.cluster_resources()
        cards = int(there.get("GPU", 0))
        each = min(1, cards) if gpus is None else gpus
        count = workers or max(1, cards // each if each else int(there.get("CPU", 1)) // cpus)
        if (needed := count * each) > cards:
            what = (
                f"resources.gpus={each} (or resources.target.gpus) for {count} worker{'s' if count > 1 else ''} makes"
            )
            raise ConfigError(TOO_FEW.format(what=f"{what} {needed} graphics cards", there=cards))
        return count, each

    def _new_shelf(self) -> Any:
        """An actor on this node that has the traces; it remembers nothing, so that another one may take its place."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        told = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
        return self._ray.remote(StoreShelf).options(**told).remote(self._traces)

    def _meet(self) -> None:
        """Wait for the first worker; those that are lost meanwhile are replaced, a few times."""
        most, until = self._seats * MOST_LOSSES, time.monotonic() + BEGIN_S
        while not self._hands:
            for lost in self._arrive(self._ray.wait([*self._called], num_returns=1, timeout=WAIT_S)[0]):
                most -= 1
                if most <= 0:
                    raise ConfigError(f"executor=ray: no worker can begin: {lost.why}")
            if not self._hands and time.monotonic() > until:
                raise ConfigError(TOO_FEW.format(what=f"no worker has begun after {BEGIN_S:.0f} s", there=self._said()))

    def _said(self) -> dict[str, float]:
        """What the cluster has, for people."""
        return {name: n for name, n in self._ray.cluster_resources().items() if name in ("CPU", "GPU")}

    def _arrive(self, answers: Sequence[Any]) -> Iterator[Lost]:
        """Workers that answer are there. Raises `ConfigError` for one of another version."""
        for answer in answers:
            called = self._called.pop(answer)
            try:
                compare(self._versions, self._ray.get(answer))
            except self._ray.exceptions.RayActorError as error:
                self._ray.kill(called.hand)
                self._hire()
                yield Lost(called.worker, f"{called.worker}: {first_line(error)}", begun=False)
            except self._ray.exceptions.RayError as error:
                raise ConfigError(f"executor=ray: a worker cannot begin: {first_line(error)}") from error
            else:
                self._hands[called.worker] = called.hand

    @property
    def seats(self) -> int:
        """See `Crew.seats`."""
        return self._seats

    @property
    def workers(self) -> Sequence[str]:
        """See `Crew.workers`."""
        return [*self._hands]

    def _hire(self) -> None:
        self._number += 1
        hand = self._made.remote(*self._given)
        self._called[hand.about.remote()] = _Called(f"actor-{self._number}", hand)

    def send(self, worker: str, unit: Unit) -> None:
        """See `Crew.send`."""
        self._coming[worker] = self._hands[worker].work.options(num_returns="streaming").remote(unit)

    def dismiss(self, worker: str) -> None:
        """See `Crew.dismiss`."""
        if worker in self._hands:
            self._ray.kill(self._hands.pop(worker))
            self._over(worker)
            self._hire()

    def _over(self, worker: str) -> None:
        self._coming.pop(worker, None)  # Ctrl-C may have come before its unit was sent
        self._begun.discard(worker)

    def receive(self) -> Iterator[Message]:
        """See `Crew.receive`. Raises `ResultsError` where no worker was there for long."""
        by_coming = {coming: worker for worker, coming in self._coming.items()}
        try:
            waited = [*by_coming, *self._called]
            ready, _ = self._ray.wait(waited, num_returns=1, timeout=WAIT_S, fetch_local=False)
        except self._ray.exceptions.RaySystemError as error:
            raise ResultsError(f"executor=ray: the cluster is gone: {first_line(error)}") from error
        for one in ready:
            if one in self._called:
                yield from self._arrive([one])
            elif (message := self._read(by_coming[one], one)) is not None:
                yield message
        self._there = time.monotonic() if self._hands else self._there
        if time.monotonic() - self._there > ALONE_S:
            raise ResultsError(f"executor=ray: no worker for {ALONE_S:.0f} s; the cluster has {self._said()}")

    def _read(self, worker: str, coming: Any) -> Message | None:
        """What a worker said; None where it only begins."""
        try:
            said = self._ray.get(next(coming))
        except StopIteration:
            self._over(worker)
            return Ended(worker)
        except self._ray.exceptions.RayTaskError as error:
            self._over(worker)
            return Broke(worker, error.cause if isinstance(error.cause, Exception) else error)
        except self._ray.exceptions.RayError as error:
            return self._lose(worker, error)
        self._begun.add(worker)
        return None if said == BEGUN else Did(worker, said)

    def _lose(self, worker: str, error: Exception) -> Lost:
        begun = worker in self._begun
        self.dismiss(worker)
        return Lost(worker, f"{worker}: {first_line(error)}", begun)

    def close(self) -> None:
        """See `Crew.close`; a cluster that was there before stays."""
        for hand in [*self._hands.values(), *(called.hand for called in self._called.values())]:
            self._ray.kill(hand)
        if self._shelf is not None:
            self._ray.kill(self._shelf)
        self._hands, self._called, self._coming, self._shelf = {}, {}, {}, None
        self._ray.shutdown()
