"""What a running sweep shows on stderr: one line that changes in a terminal, lines one after another in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isnan
from threading import Event, Thread

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from specdraft.study.progress import TimedProgress
from specdraft.study.timeline import Stage, Timeline

EVERY_S = 30.0  # between lines of a log
NAME, COUNT, UNIT, LEFT, RATE, PAIR, BAR = 8, 15, 7, 12, 11, 18, 10  # columns; of the last two at most and at least


class TerminalProgress(TimedProgress):
    """One line: the stage, how far it is, and the time left of all stages."""

    def __init__(self, console: Console, now: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(now)
        self._console = console
        self._live = Live(self, console=console, transient=True, refresh_per_second=4)

    def __enter__(self) -> TerminalProgress:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            yield line(self._timeline, options.max_width - 1)

    def note(self, what: str) -> None:
        self._console.print(Text(what))

    def failed(self, what: str, error: str) -> None:
        self._console.print(Text(f"failed: {what}: {error}", style="red"))


def line(timeline: Timeline, width: int) -> Text:
    """A timeline in so many columns: what matters most stays, and everything keeps its place while a stage goes on."""
    left = f"{clock(timeline.left_s()) if timeline.foreseen else '?'} left".rjust(LEFT)
    stage = timeline.current
    if stage is None:
        return Text(f"{'':{NAME}} {left}"[:width], no_wrap=True)
    pairs = max((min(len(other.pair), PAIR) for other in timeline.stages), default=0)
    shown = {"name": f"{stage.name:{NAME}}", "left": left}
    wanted = {
        "count": f"{stage.done:,.0f}/{stage.due:,.0f}".rjust(COUNT),
        "unit": f"{stage.unit:{UNIT}}",
        "bar": " " * BAR,
        "pair": shortened(stage.pair, PAIR).ljust(pairs),
        "rate": rate(stage).rjust(RATE),
    }
    for part, text in wanted.items():
        if text and sum(map(len, shown.values())) + len(shown) + len(text) <= width:
            shown[part] = text
    if "bar" in shown:
        room = width - sum(map(len, shown.values())) - len(shown) + 1
        shown["bar"] = bar(stage.done / stage.due if stage.due else 1.0, BAR + room)
    places = ("pair", "name", "bar", "count", "unit", "rate", "left")
    return Text(" ".join(shown[part] for part in places if part in shown)[:width], no_wrap=True)


def bar(share: float, width: int) -> str:
    """A share of 1 in so many columns."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "━" * full + "╌" * (width - full)


def rate(stage: Stage) -> str:
    """Units a second, or seconds a unit where these are more; empty before it is known."""
    if isnan(stage.rate):
        return ""
    if stage.rate < 1:
        return f"{1 / stage.rate:,.1f} s each"
    return f"{stage.rate:,.0f}/s" if stage.rate >= 10 else f"{stage.rate:.1f}/s"


def shortened(text: str, most: int) -> str:
    """A text in so many columns."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def clock(seconds: float) -> str:
    """`2:05`, `1:02:05`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class LogProgress(TimedProgress):
    """A line when a stage begins, and every half minute."""

    def __init__(
        self, console: Console, now: Callable[[], float] = time.perf_counter, every_s: float = EVERY_S
    ) -> None:
        super().__init__(now)
        self._console = console
        self._every_s, self._end = every_s, Event()
        self._ticking = Thread(target=self._tick, daemon=True)

    def __enter__(self) -> LogProgress:
        self._ticking.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._ticking.join()

    def start(self, total: int, reused: int) -> None:
        self._say(f"{total} rows, {reused} of them reused")

    def stage(self, name: str, due: float, unit: str) -> None:
        super().stage(name, due, unit)
        if due > 0:
            self._say_where()

    def note(self, what: str) -> None:
        self._say(what)

    def failed(self, what: str, error: str) -> None:
        self._say(f"failed: {what}: {error}")

    def _tick(self) -> None:
        while not self._end.wait(self._every_s):
            self._say_where()

    def _say_where(self) -> None:
        with self._lock:
            stage = self._timeline.current
            left = f", about {clock(self._timeline.left_s())} left" if self._timeline.foreseen else ""
        if stage is None:
            return
        pair = f"{stage.pair}: " if stage.pair else ""
        far = f"{stage.done:,.0f} of {stage.due:,.0f}" if stage.done else f"{stage.due:,.0f}"
        said = f", {rate(stage)}" if rate(stage) else ""
        self._say(f"{pair}{stage.name} {far} {stage.unit}{said}{left}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
