"""`specdraft help`: topics, one of them, and what is none."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from importlib.resources import files

import pytest
from support.command_line import Run, one_line

from specdraft.commands.help_topics import about, topics, without_comments
from specdraft.commands.options import DONE


def test_topics_are_listed(run: Run) -> None:
    said = run("help")
    assert said.code == DONE
    listed = dict(line.split(maxsplit=1) for line in said.out.split("\n\n")[0].splitlines())
    assert listed == {name: about(text) for name, text in topics().items()}
    assert all(len(line) <= 100 for line in said.out.splitlines())


@pytest.mark.parametrize("name", topics())
def test_a_topic_says_what_it_is_about(name: str) -> None:
    first = topics()[name].splitlines()[0]
    assert re.fullmatch(rf"# {name}: \S.*[^.]", first)


def test_a_pipe_gets_the_file_without_its_markers(run: Run) -> None:
    text = files("specdraft").joinpath("help/findings.md").read_text(encoding="utf-8")
    said = run("help", "findings")
    assert said.out.splitlines() == [line for line in text.splitlines() if not line.startswith("<!--")]
    assert "<!--" in text


def test_comments_go_and_lines_stay() -> None:
    text = (
        "<!-- study -->\n| 1 |\n<!-- /study -->\nFrom <!-- n:a -->2.5<!-- /n -->\n<!-- n:c -->to 3<!-- /n -->\nor 4.\n"
    )
    assert without_comments(text) == "| 1 |\nFrom 2.5\nto 3\nor 4.\n"


def test_a_terminal_gets_it_drawn() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from specdraft.cli import main; main()", "help", "theory"]
    subprocess.run(command, stdout=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"}, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\x1b[" in shown and "───" in shown and "<!--" not in shown and "| --- |" not in shown


def test_an_unknown_topic(run: Run) -> None:
    assert one_line(run("help", "metric")).startswith(
        "error: help topic 'metric' is not known; did you mean 'metrics'?"
    )
