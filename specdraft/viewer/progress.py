"""What a running sweep shows on stderr: a bar in a terminal, lines in a log."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from specdraft.study.progress import Progress


class TerminalProgress(Progress):
    """A bar whose time left comes from the rows of the last minutes.

    Rows run prompt by prompt with all combinations on each, so cheap and dear ones are mixed evenly.
    """

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
        )
        self._bar = RichProgress(*columns, console=console, speed_estimate_period=120, transient=True)
        self._task = TaskID(0)

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def start(self, total: int, reused: int) -> None:
        self._task = self._bar.add_task("starting", total=total - reused)

    def pair(self, name: str) -> None:
        self._bar.update(self._task, description=name)

    def advance(self, rows: int) -> None:
        self._bar.advance(self._task, rows)

    def note(self, what: str) -> None:
        self._bar.update(self._task, description=what)

    def failed(self, what: str, error: str) -> None:
        self._bar.console.print(f"failed: {what}: {error}", style="red", markup=False, highlight=False)


class LogProgress(Progress):
    """A line at every tenth of the work."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._done = self._said = 0

    def start(self, total: int, reused: int) -> None:
        self._total, self._started = total - reused, time.perf_counter()
        self._say(f"{total} rows, {reused} of them reused")

    def pair(self, name: str) -> None:
        self._say(f"pair {name}")

    def advance(self, rows: int) -> None:
        self._done += rows
        if self._total and self._done * 10 // self._total > self._said:
            self._said = self._done * 10 // self._total
            spent = time.perf_counter() - self._started
            left = spent / self._done * (self._total - self._done)
            self._say(f"{self._done} of {self._total} rows, {spent:.0f} s, about {left:.0f} s left")

    def note(self, what: str) -> None:
        self._say(what)

    def failed(self, what: str, error: str) -> None:
        self._say(f"failed: {what}: {error}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
