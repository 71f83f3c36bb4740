"""What a study tells while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import RLock

from specdraft.study.timeline import Stage, Timeline
from specdraft.traces.watch import Watch


class Progress(Watch):
    """What a sweep tells while it runs; a front end overrides what it wants to show.

    Beside the stages of `Watch`, of the pair that is on: rows are counted as they are written down.
    """

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to put away."""

    def start(self, total: int, reused: int) -> None:
        """`total` rows are due, `reused` of them are there already."""

    def plan(self, stages: Sequence[Stage]) -> None:
        """These stages are going to happen."""

    def pair(self, name: str) -> None:
        """A pair's turn; `""`: what belongs to none."""

    def note(self, what: str) -> None:
        """Something that the user should know."""

    def workers(self, doing: Mapping[str, str]) -> None:
        """What each worker of an executor is doing now."""

    def advance(self, rows: int) -> None:
        """So many more rows are done."""

    def given_up(self, rows: int) -> None:
        """So many more rows will not be done."""
        self.advance(rows)

    def spent_s(self) -> Mapping[str, Mapping[str, float]]:
        """Pair -> stage -> seconds so far; nothing where nobody keeps the time."""
        return {}

    def failed(self, what: str, error: str) -> None:
        """A combination failed."""


class TimedProgress(Progress):
    """Keeps the stages of a study and what they took.

    A front end may ask for them in another thread, so each change is whole.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._timeline, self._pair, self._lock = Timeline(now=now), "", RLock()

    def plan(self, stages: Sequence[Stage]) -> None:
        with self._lock:
            self._timeline.plan(stages)

    def pair(self, name: str) -> None:
        with self._lock:
            self._timeline.leave()
            self._pair = name

    def stage(self, name: str, due: float, unit: str) -> None:
        with self._lock:
            self._timeline.begin(self._pair, name, due, unit)

    def ready(self, amount: float) -> None:
        with self._lock:
            self._timeline.ready(amount)

    def done(self, amount: float) -> None:
        with self._lock:
            self._timeline.advance(amount)

    def advance(self, rows: int) -> None:
        with self._lock:
            self._timeline.advance_rows(rows, self._pair)

    def spent_s(self) -> Mapping[str, Mapping[str, float]]:
        with self._lock:
            return self._timeline.spent_s()
