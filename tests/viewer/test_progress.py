"""What a running sweep shows."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from specdraft.study.progress import Progress
from specdraft.viewer.progress import LogProgress, TerminalProgress


def shown(make: Callable[[Console], Progress], terminal: bool) -> str:
    """A study of 25 rows, 5 of them reused, which fails in one combination."""
    console = Console(file=(file := StringIO()), force_terminal=terminal, width=120, legacy_windows=False)
    with make(console) as progress:
        progress.start(25, 5)
        progress.pair("[tiny]")
        progress.advance(2)
        progress.note("measured costs")
        progress.failed("tiny kary budget=4", "[boom]")
        progress.advance(18)
    return file.getvalue()


def test_a_bar_in_a_terminal() -> None:
    text = shown(TerminalProgress, terminal=True)
    assert "20/20" in text
    assert "measured costs" in text
    assert "failed: tiny kary budget=4: [boom]" in text
    assert "\x1b[?25h" in text  # the cursor is there again


def test_a_bar_counts_what_is_still_to_do() -> None:
    console = Console(file=(file := StringIO()), force_terminal=True, width=120, legacy_windows=False)
    with TerminalProgress(console) as progress:
        progress.start(25, 5)
        progress.advance(2)
    assert "2/20" in file.getvalue()


def test_lines_in_a_log() -> None:
    lines = shown(LogProgress, terminal=False).splitlines()
    assert lines[:2] == ["25 rows, 5 of them reused", "pair [tiny]"]
    assert [line.partition(",")[0] for line in lines[2:]] == [
        "2 of 20 rows",
        "measured costs",
        "failed: tiny kary budget=4: [boom]",
        "20 of 20 rows",
    ]
    assert lines[-1].endswith("about 0 s left")


def test_a_log_says_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 110.0])
    monkeypatch.setattr("specdraft.viewer.progress.time.perf_counter", lambda: next(times))
    console = Console(file=(file := StringIO()), width=120)
    with LogProgress(console) as progress:
        progress.start(20, 0)
        progress.advance(4)
    assert file.getvalue().splitlines()[-1] == "4 of 20 rows, 10 s, about 40 s left"
