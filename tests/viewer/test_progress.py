"""What a running sweep shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from specdraft.study.timeline import Stage, Timeline
from specdraft.viewer.progress import LogProgress, TerminalProgress, TimedProgress, bar, clock, line, rate, shortened


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.at = 50.0

    def __call__(self) -> float:
        return self.at


STAGES = [
    Stage("[tiny]", "record", "tokens", 100, 10.0, by_models=True),
    Stage("[tiny]", "replay", "rows", 20, 4.0),
    Stage("", "report", "pages", 1, 6.0),
]


def run(progress: TimedProgress, now: Clock) -> None:
    """A study of 25 rows, 5 of them reused, which fails in one combination."""
    progress.start(25, 5)
    progress.plan([Stage(stage.pair, stage.name, stage.unit, stage.due, stage.guess_s) for stage in STAGES])
    progress.pair("[tiny]")
    progress.stage("record", 100, "tokens")
    now.at += 2
    progress.ready(50)
    now.at += 8
    progress.done(50)
    now.at += 10
    progress.done(50)
    progress.note("recorded 2 trajectories")
    progress.stage("annotate", 0, "prompts")
    progress.stage("replay", 20, "rows")
    progress.advance(15)
    progress.failed("tiny kary budget=4", "[boom]")
    progress.advance(5)
    progress.pair("")
    progress.stage("report", 1, "pages")
    progress.done(1)


def test_lines_in_a_log() -> None:
    """A line for each stage with something to do."""
    console = Console(file=(file := StringIO()), width=40)
    with LogProgress(console, now := Clock()) as progress:
        run(progress, now)
    assert file.getvalue().splitlines() == [
        "25 rows, 5 of them reused",
        "[tiny]: record 100 tokens, about 0:20 left",
        "recorded 2 trajectories",
        "[tiny]: replay 20 rows, about 0:10 left",
        "failed: tiny kary budget=4: [boom]",
        "report 1 pages, about 0:06 left",
    ]


def test_a_log_says_now_and_then_how_far_it_is() -> None:
    console = Console(file=(file := StringIO()), width=40)
    with LogProgress(console, now := Clock(), every_s=0.01) as progress:
        progress.plan([Stage("", "record", "tokens", 2000, 10.0)])
        progress.stage("record", 2000, "tokens")
        now.at += 100
        progress.done(1250)
        until = time.perf_counter() + 10
        while "1,250" not in file.getvalue() and time.perf_counter() < until:
            time.sleep(0.01)
    lines = file.getvalue().splitlines()
    assert lines[-1] == "record 1,250 of 2,000 tokens, 12/s, about 1:00 left"
    time.sleep(0.05)
    assert file.getvalue().splitlines() == lines  # it has ended


def test_of_what_nothing_is_known_no_time_is_told() -> None:
    console = Console(file=(file := StringIO()), width=40)
    with LogProgress(console, now := Clock()) as progress:
        progress.stage("cells", 16, "cells")
        assert line(progress._timeline, 60).plain.split()[-2:] == ["?", "left"]
        now.at += 10
        progress.done(4)
        assert line(progress._timeline, 60).plain.split()[-2:] == ["0:30", "left"]
    assert file.getvalue().splitlines() == ["cells 16 cells"]


def test_half_a_minute_is_between_a_logs_lines() -> None:
    assert LogProgress(Console(file=StringIO()))._every_s == 30


def test_a_line_in_a_terminal() -> None:
    console = Console(file=(file := StringIO()), force_terminal=True, width=100, legacy_windows=False)
    with TerminalProgress(console, now := Clock()) as progress:
        run(progress, now)
        progress.pair("[tiny]")
        progress.stage("record", 100, "tokens")
        now.at += 5
        progress.done(25)
        progress._live.refresh()
    text = file.getvalue()
    assert "failed: tiny kary budget=4: [boom]" in text
    assert "[tiny] record" in text
    assert "\x1b[31m[tiny]" not in text  # what failed is red, the line is not
    assert "25/100 tokens" in text
    assert "5.0/s    0:15 left" in text
    assert text.endswith("\x1b[2K")  # nothing of it stays
    assert "\x1b[?25h" in text  # the cursor is there again


@pytest.fixture
def timeline() -> Timeline:
    """A stage at 1,024 of 115,200 tokens after two seconds."""
    now = Clock()
    timeline = Timeline([Stage("zoo-distilled with ngram", "record", "tokens", 115_200, 9.0)], now)
    timeline.begin("zoo-distilled with ngram", "record", 115_200, "tokens")
    now.at += 2
    timeline.advance(1024)
    return timeline


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (100, "zoo-distilled wit… record   ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌   1,024/115,200 tokens        512/s    3:43 left"),
        (79, "zoo-distilled wit… record   ╌╌╌╌╌╌╌╌╌╌╌╌╌╌   1,024/115,200 tokens     3:43 left"),
        (60, "record   ╌╌╌╌╌╌╌╌╌╌╌╌╌╌   1,024/115,200 tokens     3:43 left"),
        (39, "record     1,024/115,200    3:43 left"),
        (20, "record      3:43 left"[:20]),
    ],
)
def test_what_matters_most_stays(timeline: Timeline, width: int, shown: str) -> None:
    assert line(timeline, width).plain == shown


def test_nothing_overflows_and_nothing_jumps(timeline: Timeline) -> None:
    """At each width everything keeps its place while a stage goes on, whatever is done and left."""
    for width in range(1, 130):
        lines = []
        for _ in range(4):
            timeline.advance(7_000)
            lines.append(line(timeline, width).plain)
        assert max(map(cell_len, lines)) <= width
        assert len({text.find("left") for text in lines}) == 1
        assert len({text.find("tokens") for text in lines}) == 1


def test_between_stages(timeline: Timeline) -> None:
    timeline.leave()
    assert line(timeline, 79).plain.split() == ["0:00", "left"]
    assert line(Timeline(), 10).plain.strip() == ""


def test_parts() -> None:
    assert bar(0.5, 8) == "━━━━╌╌╌╌"
    assert (bar(0, 3), bar(1, 3), bar(7, 3)) == ("╌╌╌", "━━━", "━━━")
    assert [clock(seconds) for seconds in (0, 59.6, 125, 3725)] == ["0:00", "1:00", "2:05", "1:02:05"]
    assert (shortened("abc", 3), shortened("abcd", 3)) == ("abc", "ab…")
    rates = [Stage("", "", "", 9, done=done, worked_s=4) for done in (0, 1, 6, 4000)]
    assert list(map(rate, rates)) == ["", "4.0 s each", "1.5/s", "1,000/s"]


def test_both_say_the_same(timeline: Timeline) -> None:
    makes: list[Callable[[Console, Clock], TimedProgress]] = [LogProgress, TerminalProgress]
    left = []
    for make in makes:
        with make(Console(file=StringIO()), now := Clock()) as progress:
            run(progress, now)
            left.append(progress._timeline.left_s())
    assert left == [0, 0]
