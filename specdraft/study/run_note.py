"""What a sweep notes of itself while it runs, for whoever asks from another process: `progress.json`."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from specdraft.errors import ResultsError
from specdraft.results.files import without_folders, write_atomically
from specdraft.study.progress import Progress, TimedProgress
from specdraft.study.timeline import Stage

FILE = "progress.json"
EVERY_S = 2.0  # between two notes
CLOCK_S = 2.0  # a clock that is set meanwhile moves when a process began
MOST_FAILURES = 50  # that are noted with their errors


class NotedProgress(TimedProgress):
    """Tells a front end all that it is told, and notes it in the study's folder.

    A note is replaced as a whole; one that cannot be written is left out, as no number depends on it.

    Args:
        shown: the front end.
        out: the study's folder.
        private_paths: see `StudyPlan`.
        now: seconds since 1970.
        every_s: between two notes.
    """

    def __init__(
        self,
        shown: Progress,
        out: Path,
        private_paths: Collection[str] = (),
        now: Callable[[], float] = time.time,
        every_s: float = EVERY_S,
    ) -> None:
        super().__init__()
        self._shown, self._path, self._now, self._every_s = shown, out / FILE, now, every_s
        self._noted, self._private_paths = 0.0, private_paths
        self._rows = {"due": 0, "reused": 0, "done": 0, "given_up": 0}
        self._workers: dict[str, str] = {}
        self._failed, self._failures = 0, list[dict[str, str]]()
        self._process = this_process() | {"started": now()}

    def __enter__(self) -> NotedProgress:
        self._note()
        return self

    def __exit__(self, *exception: object) -> None:
        """The sweep is over, for whatever reason."""
        self._note(ended=True)

    def start(self, total: int, reused: int) -> None:
        self._rows |= {"due": total, "reused": reused}
        self._shown.start(total, reused)
        self._note()

    def plan(self, stages: Sequence[Stage]) -> None:
        super().plan([replace(stage) for stage in stages])  # who is told changes them
        self._shown.plan(stages)
        self._note()

    def pair(self, name: str) -> None:
        super().pair(name)
        self._shown.pair(name)
        self._note()

    def stage(self, name: str, due: float, unit: str) -> None:
        super().stage(name, due, unit)
        self._shown.stage(name, due, unit)
        self._note()

    def ready(self, amount: float) -> None:
        super().ready(amount)
        self._shown.ready(amount)

    def done(self, amount: float) -> None:
        super().done(amount)
        self._shown.done(amount)
        self._note_in_time()

    def advance(self, rows: int) -> None:
        super().advance(rows)
        self._rows["done"] += rows
        self._shown.advance(rows)
        self._note_in_time()

    def given_up(self, rows: int) -> None:
        super().advance(rows)
        self._rows["given_up"] += rows
        self._shown.given_up(rows)
        self._note_in_time()

    def note(self, what: str) -> None:
        self._shown.note(what)

    def workers(self, doing: Mapping[str, str]) -> None:
        self._workers = dict(doing)
        self._shown.workers(doing)
        self._note_in_time()

    def failed(self, what: str, error: str) -> None:
        self._failed += 1
        if len(self._failures) < MOST_FAILURES:
            self._failures.append(without_folders({"what": what, "error": error}, self._private_paths))
        self._shown.failed(what, error)
        self._note_in_time()

    def spent_s(self) -> Mapping[str, Mapping[str, float]]:
        return self._shown.spent_s()

    def _note_in_time(self) -> None:
        if self._now() - self._noted >= self._every_s:
            self._note()

    def _note(self, ended: bool = False) -> None:
        self._noted = self._now()
        timeline = self._timeline
        note = {
            **self._process,
            "updated": self._noted,
            "ended": ended,
            "rows": self._rows,
            "left_s": round(timeline.left_s(), 1) if timeline.foreseen and not ended else None,
            "stages": [_as_dict(stage, stage is timeline.current) for stage in timeline.stages],
            "workers": self._workers if not ended else {},
            "failed": self._failed,
            "failures": self._failures,
        }
        with suppress(ResultsError):
            write_atomically(self._path, json.dumps(note) + "\n")


def this_process() -> dict[str, Any]:
    """What tells this process from others, on this machine and elsewhere; the machine's name is not said."""
    return {"pid": os.getpid(), "process_started": _begun(os.getpid()), "machine": _machine()}


def is_alive(note: Mapping[str, Any]) -> bool | None:
    """Whether the process of a note is there; None where it is another machine's."""
    if note["machine"] != _machine():
        return None
    begun = _begun(note["pid"])
    return begun is not None and abs(begun - note["process_started"]) < CLOCK_S


def _begun(pid: int) -> float | None:
    """When a process began, in seconds since 1970; None where it is over."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 2)
    except psutil.Error:
        return None


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def _as_dict(stage: Stage, current: bool) -> dict[str, Any]:
    state = "now" if current else "over" if stage.over else "begun" if stage.begun else "to come"
    seconds, named = round(stage.spent_s, 2), {"pair": stage.pair, "name": stage.name, "unit": stage.unit}
    return named | {"due": stage.due, "done": stage.done, "spent_s": seconds, "state": state}
