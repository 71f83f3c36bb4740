"""What does without torch and transformers, which take seconds to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import Run

from specdraft.commands.options import DONE

WITHOUT = """
import sys

class Heavy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Heavy())
from specdraft.cli import main

for line in sys.stdin.read().splitlines():
    sys.argv = ["specdraft", *line.split("\\t")]
    try:
        main()
    except SystemExit as stop:
        print("exit code", stop.code or 0)
"""


def test_commands_that_do_without_torch(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    small = ["tree=chain,kary", "budget=2", "prompts.limit=3", "max_new_tokens=4", "cost.measure=off", "report=false"]
    sweep = ["sweep", "pair=zoo-tiny", *small, "--out"]
    assert run(*sweep, tmp_path / "first").code == DONE  # what is recorded takes both, once
    (tmp_path / "histogram.json").write_text("[39, 1, 0, 3]")
    commands = [
        [*sweep, str(tmp_path / "again"), "--dry-run"],
        [*sweep, str(tmp_path / "again")],
        ["sweep", "--print-config"],
        ["trees", "list"],
        ["trees", "show", "kary", "budget=8"],
        ["reconcile", str(tmp_path / "histogram.json"), "--study", str(tmp_path / "first"), "tree=chain"],
        ["export", str(tmp_path / "first"), "--format", "spec-bench", "--out", str(tmp_path / "exported")],
        ["trees", "optimal", str(tmp_path / "histogram.json"), "--budget", "2"],
        ["trees", "optimal", "--acceptance-vector", "0.6,0.2", "--budget", "4"],
        ["theory", "--alpha", "0.8", "--gamma", "5"],
        ["traces", "list"],
        ["help"],
        ["help", "trees"],
        ["status", str(tmp_path / "first")],
        ["compare", str(tmp_path / "first"), str(tmp_path / "again"), "--out", str(tmp_path / "compared")],
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        input="\n".join(map("\t".join, commands)),
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.stdout.count("exit code 0") == len(commands), done.stdout + done.stderr
    assert "was imported" not in done.stderr
    assert "3 combinations x 3 prompts" in done.stdout
    first, again = ((tmp_path / name / "records.csv").read_text() for name in ("first", "again"))
    assert first == again
