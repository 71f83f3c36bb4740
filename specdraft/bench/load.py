"""What else the processor does while something is timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import nan
from typing import NamedTuple

import psutil

BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # of `psutil.cpu_times`; what a guest uses is in `user`
CORES, SHARE = 0.5, 0.02  # other work that is no matter: so many cores, or so large a share of all


class Reading(NamedTuple):
    """The processor's clocks, in seconds since some time.

    Attributes:
        wall: as the clock on the wall says.
        busy: of all cores that this process may use, together; `total`: those when they idle too.
        own: of this process.
    """

    wall: float
    busy: float
    total: float
    own: float


class Elsewhere(NamedTuple):
    """What others used of the processor.

    Attributes:
        used: cores, on average; NaN where the system does not say.
        cores: that this process may use.
    """

    used: float
    cores: int

    @property
    def disturbs(self) -> bool:
        """Whether what was timed meanwhile says little."""
        return self.used > max(CORES, SHARE * self.cores)


def allowed_cores() -> list[int]:
    """The cores that this process may use."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # not on macOS
        return list(process.cpu_affinity())
    return list(range(psutil.cpu_count() or 1))


def read_clocks() -> Reading:
    """The clocks now."""
    each = psutil.cpu_times(percpu=True)
    chosen = [each[core] for core in allowed_cores() if core < len(each)]
    busy = sum(getattr(times, name, 0.0) for times in chosen for name in BUSY)
    idle = sum(times.idle + getattr(times, "iowait", 0.0) for times in chosen)
    own = psutil.Process().cpu_times()
    return Reading(time.perf_counter(), busy, busy + idle, own.user + own.system)


class LoadMeter:
    """Tells what others use of the processor from `start` on."""

    def __init__(self, read: Callable[[], Reading] = read_clocks) -> None:
        self._read, self._first = read, read()

    def start(self) -> None:
        """From now on."""
        self._first = self._read()

    def elsewhere(self) -> Elsewhere:
        """Until now."""
        cores, last = len(allowed_cores()), self._read()
        wall, busy, total, own = (after - before for after, before in zip(last, self._first, strict=True))
        if wall <= 0 or total <= 0:
            return Elsewhere(nan, cores)
        return Elsewhere(max(busy - own, 0.0) / wall, cores)
