"""What runs on a cluster's nodes: workers, and the shelf of the driver's traces."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from specdraft.errors import ConfigError, ResultsError
from specdraft.models.files import first_line
from specdraft.models.placement import device_type
from specdraft.models.spec import ModelSpec
from specdraft.study.engines.base import Event
from specdraft.study.executors.crew import BEGUN
from specdraft.study.executors.units import Unit
from specdraft.study.executors.worker import Threads, Worker
from specdraft.traces.handed_over import BorrowingStore, Found, Shelf
from specdraft.traces.store import FOLDER, TraceFiles, TraceStore, default_folder, libraries


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
        traces: the driver's folder of traces.
        threads: of its forwards.
        shelf: the actor that has the driver's traces; None: every worker sees them.
    """

    def __init__(self, traces: Path, threads: Threads, shelf: Any = None) -> None:
        self._store = TraceStore(traces) if shelf is None else store_beside(traces, RayShelf(shelf))
        self._worker = Worker(self._store, threads)

    def about(self) -> dict[str, str]:
        """Its versions, once it is there."""
        return versions()

    def work(self, unit: Unit) -> Iterator[Event | str]:
        """That it begins, and the events of a unit, one by one. Raises as `Worker.run`."""
        yield BEGUN
        if isinstance(self._store, BorrowingStore):
            self._store.look_again()
        for event in self._worker.run(unit):  # noqa: UP028  (Ray sends into the generator, and would do so here)
            yield event


def store_beside(traces: Path, shelf: Shelf) -> TraceStore:
    """Where a worker finds the driver's traces: in the driver's folder, or under the name that it has here, if either
    is the folder of the shelf; else in a folder of its own that has what is on the shelf."""
    folder = default_folder() if FOLDER in os.environ else traces
    return TraceStore(folder) if _is_of(shelf, folder) else BorrowingStore(default_folder(), shelf)


def _is_of(shelf: Shelf, folder: Path) -> bool:
    """Whether a folder is the shelf's: what is written here is seen there."""
    mark = folder / f".seen-{uuid4().hex}"
    try:
        mark.touch()
    except OSError:
        return False
    try:
        return shelf.sees(mark.name)
    finally:
        mark.unlink(missing_ok=True)


class RayShelf:
    """See `Shelf`: an actor on the driver's node.

    Args:
        actor: of `StoreShelf`.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def look(self, key: str, known: str | None) -> Found:
        """See `Shelf.look`."""
        found: Found = self._said(self._actor.look.remote(key, known))
        return found

    def put(self, key: str, files: TraceFiles) -> None:
        """See `Shelf.put`."""
        self._said(self._actor.put.remote(key, files))

    def sees(self, name: str) -> bool:
        """See `Shelf.sees`."""
        return bool(self._said(self._actor.sees.remote(name)))

    def _said(self, answer: Any) -> Any:
        import ray

        try:
            return ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except ray.exceptions.RayError as error:
            raise ResultsError(f"executor=ray: the driver's traces cannot be reached: {first_line(error)}") from error
