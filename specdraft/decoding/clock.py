"""What time decoding takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch


def _now() -> float:
    return time.perf_counter()


class Times(NamedTuple):
    """Seconds so far, in two ways.

    Attributes:
        share: of the time, what is one text's; of texts that are decoded side by side, they add up to the whole.
        passed: of the time.
        divided: whether several texts share the time.
    """

    share: Callable[[], float] = _now
    passed: Callable[[], float] = _now
    divided: bool = False


ALONE = Times()


class Clock:
    """Wall-clock laps; on a GPU each lap waits for the work that was queued in it.

    Args:
        device: where the work is done.
        now: seconds so far.
    """

    def __init__(self, device: torch.device, now: Callable[[], float] = _now) -> None:
        self._device, self._now = device, now
        self.restart()

    def restart(self) -> None:
        """Start a lap now."""
        self._start = self._now()

    def lap(self) -> float:
        """Seconds since the last lap ended."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = self._now()
        seconds, self._start = now - self._start, now
        return seconds


class StepClock(Protocol):
    """What the parts of a step take, the last of which is the rest of it."""

    def restart(self) -> None:
        """A step, and its first part, begin."""

    def lap(self) -> None:
        """A part ends."""

    def seconds(self) -> list[float]:
        """The step ends: seconds of each part."""


class WaitingClock:
    """Each part ends when its work is done. Args: clock: of the parts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def restart(self) -> None:
        """See `StepClock.restart`."""
        self._laps: list[float] = []
        self._clock.restart()

    def lap(self) -> None:
        """See `StepClock.lap`."""
        self._laps.append(self._clock.lap())

    def seconds(self) -> list[float]:
        """See `StepClock.seconds`."""
        return [*self._laps, self._clock.lap()]


class Event(Protocol):
    """A mark in the queue of a device."""

    def record(self) -> None:
        """It stands behind what is queued."""

    def synchronize(self) -> None:
        """Wait until the device has reached it."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from this one to another."""


class EventClock:
    """Parts end with marks in a device's queue, for which nothing waits; they are read when the step has ended, whose
    outcome the host has waited for anyway. The last part is what is left of the time that passed on the host.

    Args:
        mark: a new event.
        now: seconds so far. Those that it leaves out (graphs were made in them) are in no part.
    """

    def __init__(self, mark: Callable[[], Event], now: Callable[[], float] = _now) -> None:
        self._mark, self._now = mark, now

    def restart(self) -> None:
        """See `StepClock.restart`."""
        self._began = self._now()
        self._events, self._left_out = list[Event](), list[float]()
        self.lap()

    def lap(self) -> None:
        """See `StepClock.lap`."""
        event = self._mark()
        event.record()
        self._events.append(event)
        self._left_out.append(_now() - self._now())

    def seconds(self) -> list[float]:
        """See `StepClock.seconds`."""
        whole = self._now() - self._began
        self._events[-1].synchronize()
        parts = [
            max(0.0, start.elapsed_time(end) / 1000 - (after - before))
            for (start, end), (before, after) in zip(pairwise(self._events), pairwise(self._left_out), strict=True)
        ]
        return [*parts, max(0.0, whole - sum(parts))]


def step_clock(device: torch.device, times: Times = ALONE) -> StepClock:
    """Of steps on a device: with events on a GPU, if it is the only one and one text has it to itself."""
    if device.type == "cuda" and torch.cuda.device_count() == 1 and not times.divided:
        return EventClock(lambda: torch.cuda.Event(enable_timing=True), times.share)  # type: ignore[no-untyped-call]
    return WaitingClock(Clock(device, times.share))
