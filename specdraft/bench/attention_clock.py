"""Seconds of a call on a processor and on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

Call = Callable[[], Any]
FLUSHED = 2**29  # bytes that are written between calls on a GPU: no cache holds keys then, and the host gets ahead
COPIED = 2**28  # bytes of the copy that tells the bandwidth
COPIES = 9


class Clock(Protocol):
    """A way to time calls."""

    def turn(self, calls: Sequence[Call]) -> list[float]:
        """Seconds of each, one after another."""


class CpuClock:
    """The time that passes."""

    def turn(self, calls: Sequence[Call]) -> list[float]:
        seconds = []
        for call in calls:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return seconds


class GpuClock:
    """Events on the device, keys out of its cache before each."""

    def __init__(self, device: torch.device) -> None:
        self._flushed = torch.empty(FLUSHED, dtype=torch.int8, device=device)
        self._device = device

    def turn(self, calls: Sequence[Call]) -> list[float]:
        pairs = []
        for call in calls:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            self._flushed.zero_()
            start.record()
            call()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize(self._device)
        return [start.elapsed_time(end) / 1000 for start, end in pairs]


def clock_of(device: torch.device) -> Clock:
    """How a device's time is taken."""
    return GpuClock(device) if device.type == "cuda" else CpuClock()


def copy_gb_s(device: torch.device, clock: Clock) -> float:
    """The bandwidth of a large copy: bytes that are read and written, 10^9 a second."""
    source = torch.ones(COPIED, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    seconds = [clock.turn([lambda: target.copy_(source)])[0] for _ in range(COPIES)]
    return 2 * COPIED / sorted(seconds)[COPIES // 2] / 1e9
