"""Workers as the driver of a study sees them, whatever they run on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from specdraft.study.engines.base import Event
from specdraft.study.executors.units import Unit


class Did(NamedTuple):
    """A worker says an event of its unit."""

    worker: str
    event: Event


class Ended(NamedTuple):
    """A worker is through with its unit."""

    worker: str


class Broke(NamedTuple):
    """A unit could not be done; its worker is well."""

    worker: str
    error: Exception


class Lost(NamedTuple):
    """A worker is gone, with what it was doing; `begun`: it had begun its unit."""

    worker: str
    why: str
    begun: bool


BEGUN = "begun"  # what a worker says first of a unit, to its crew

Message = Did | Ended | Broke | Lost


class Crew(ABC):
    """Some workers."""

    @property
    @abstractmethod
    def seats(self) -> int:
        """How many workers there are when all are there."""

    @property
    @abstractmethod
    def workers(self) -> Sequence[str]:
        """Those that can be given something."""

    @abstractmethod
    def send(self, worker: str, unit: Unit) -> None:
        """Give a worker a unit; it has none."""

    @abstractmethod
    def dismiss(self, worker: str) -> None:
        """End a worker in the middle of its unit, which nobody wants any more; another one takes its place."""

    @abstractmethod
    def receive(self) -> Iterator[Message]:
        """What workers say, after a moment of waiting; of a worker in the order in which it said it. One that is lost
        is not among `workers` any more; another one may be in its place."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
