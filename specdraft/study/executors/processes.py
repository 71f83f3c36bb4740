"""Workers that are processes on this machine: `executor=processes`."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from specdraft.study.executors.crew import BEGUN, Broke, Crew, Did, Ended, Lost, Message
from specdraft.study.executors.units import Unit
from specdraft.study.executors.worker import Threads, Worker
from specdraft.traces.store import TraceStore

WAIT_S = 0.5
OF_TERMINALS = (signal.SIGINT, signal.SIGHUP)
GOODBYE_S = 5.0  # for a worker to be gone


@dataclass
class _Hand:
    """A worker; `seat`: which of the shares of this machine it has; `begun`: it has a unit, and has begun it."""

    process: SpawnProcess
    pipe: Connection
    seat: int
    begun: bool = False


class ProcessCrew(Crew):
    """So many processes, each with a share of the processor and of the graphics cards.

    Args:
        workers: how many.
        traces: the folder of traces.
        threads: of each.
        devices: what each worker sees as `CUDA_VISIBLE_DEVICES`; empty: what this process sees.
    """

    def __init__(self, workers: int, traces: Path, threads: Threads, devices: Sequence[str] = ()) -> None:
        self._traces, self._threads, self._devices = traces, threads, devices
        self._hands: dict[str, _Hand] = {}
        self._seats, self._number = workers, 0
        for seat in range(workers):
            self._hire(seat)

    @property
    def seats(self) -> int:
        """See `Crew.seats`."""
        return self._seats

    @property
    def workers(self) -> Sequence[str]:
        """See `Crew.workers`."""
        return [*self._hands]

    def send(self, worker: str, unit: Unit) -> None:
        """See `Crew.send`. What cannot be sent because the worker is gone is found out by `receive`."""
        try:
            self._hands[worker].pipe.send(unit)
        except OSError:
            self._hands[worker].process.kill()

    def dismiss(self, worker: str) -> None:
        """See `Crew.dismiss`."""
        if worker in self._hands:  # Ctrl-C may have come while another one took its place
            self._replace(worker)

    def receive(self) -> Iterator[Message]:
        """See `Crew.receive`."""
        by_pipe = {hand.pipe: worker for worker, hand in self._hands.items()}
        for pipe in wait([*by_pipe], WAIT_S):
            assert isinstance(pipe, Connection)
            if (message := self._read(by_pipe[pipe], pipe)) is not None:
                yield message

    def _read(self, worker: str, pipe: Connection) -> Message | None:
        """What a worker said; None where it only begins."""
        try:
            said = pipe.recv()
        except Exception as error:  # torn in the middle, or the end
            return self._lose(worker, error)
        self._hands[worker].begun = said is not None and not isinstance(said, Exception)
        if isinstance(said, str):
            return None
        if said is None:
            return Ended(worker)
        return Broke(worker, said) if isinstance(said, Exception) else Did(worker, said)

    def _lose(self, worker: str, error: Exception) -> Lost:
        hand = self._replace(worker)
        code = hand.process.exitcode
        why = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}" if code else str(error)
        return Lost(worker, f"process {hand.process.pid}: {why}", hand.begun)

    def _replace(self, worker: str) -> _Hand:
        """End a worker, and hire another one in its place. Returns the one that went."""
        hand = self._hands.pop(worker)
        hand.pipe.close()
        hand.process.kill()
        hand.process.join(GOODBYE_S)
        self._hire(hand.seat)
        return hand

    def _hire(self, seat: int) -> None:
        self._number += 1
        ours, theirs = get_context("spawn").Pipe()
        device = self._devices[seat] if self._devices else None
        given = (theirs, self._traces, self._threads, device)
        process = get_context("spawn").Process(target=_work, args=given, daemon=True, name=f"specdraft-{self._number}")
        with held_back():
            process.start()
        theirs.close()
        self._hands[process.name] = _Hand(process, ours, seat)

    def close(self) -> None:
        """See `Crew.close`."""
        for hand in self._hands.values():
            hand.process.kill()
        for hand in self._hands.values():
            hand.process.join(GOODBYE_S)
            hand.pipe.close()
        self._hands = {}


@contextmanager
def held_back() -> Iterator[None]:
    """What a terminal sends waits, here and in processes that begin meanwhile, which cannot be told so soon."""
    resource_tracker.ensure_running()  # lets them through once it has begun, so not in between
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, traces: Path, threads: Threads, device: str | None) -> None:
    """The life of a worker: units in, events out; it ends with whoever hired it."""
    for number in OF_TERMINALS:  # the driver is told too, and ends its workers
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_TERMINALS)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = Worker(TraceStore(traces), threads)
    while True:
        try:
            unit: Unit = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(BEGUN)
            for event in worker.run(unit):
                pipe.send(event)
            pipe.send(None)
        except BrokenPipeError:
            return
        except Exception as error:
            pipe.send(_sendable(error))


def _sendable(error: Exception) -> Exception:
    """An error that survives the way: what it says, where it cannot be sent itself."""
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(str(error))
    return error if type(again) is type(error) else RuntimeError(str(error))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
