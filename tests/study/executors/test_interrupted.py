"""Ctrl-C while processes work: it ends soon and cleanly, and one process goes on from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from support.engine_runs import study_of
from support.tiny_models import PairFolders

from specdraft.study.plan import plan_study
from specdraft.study.run import run_study

NAMES = ["combination", "prompt_id", "repeat"]
COUNTS = [*NAMES, "steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens"]
ENGINES = {
    "replay": ["tree=chain,kary,sequoia,best_first", "budget=2,4,6", "max_new_tokens=120"],
    "live": ["engine=live", "tree=chain,kary,sequoia", "budget=2,4", "max_new_tokens=60"],
}
MOMENTS = [("replay", "load", True), ("replay", "record", False), ("replay", "costs", True), ("live", "rows", True)]
SOON_S = 20.0  # on a busy machine


HELD = """
import signal
from multiprocessing import get_context
from specdraft.study.executors.processes import held_back

def told(pipe):
    pipe.send(sorted(number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])))

if __name__ == "__main__":
    for _ in range(2):
        ours, theirs = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=told, args=(theirs,))
        with held_back():
            process.start()
        print(*ours.recv())
"""


def test_processes_begin_without_what_a_terminal_sends(tmp_path: Path) -> None:
    """The first one too, for which Python begins a process of its own."""
    (tmp_path / "held.py").write_text(HELD)
    done = subprocess.run([sys.executable, tmp_path / "held.py"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["SIGHUP SIGINT"] * 2


def sweep(overrides: list[str], out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from specdraft.cli import main; main()", "sweep", *overrides, "--out", str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def is_at(out: Path, stage: str) -> bool:
    """Whether a sweep has noted that it is there, and has rows if these are its stage."""
    try:
        note: dict[str, Any] = json.loads((out / "progress.json").read_text())
    except (OSError, ValueError):
        return False
    now = [one["name"] for one in note["stages"] if one["state"] == "now"]
    return now == [stage] and (stage != "rows" or note["rows"]["done"] > 0)


def rows_of(out: Path) -> list[list[Any]]:
    return pd.read_csv(out / "records.csv")[COUNTS].sort_values(NAMES).to_numpy().tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "stage", "whole_group"), MOMENTS)
def test_ctrl_c_ends_all_of_it_and_another_executor_goes_on(
    tiny_pair_folders: PairFolders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    stage: str,
    whole_group: bool,
) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    texts = [f"Once upon {n} times" for n in range(12)]
    base = [*study_of(tiny_pair_folders, tmp_path, texts), *ENGINES[engine], "report=false"]
    out = tmp_path / "out"
    process = sweep([*base, "executor=processes", "resources.workers=2"], out)
    while not is_at(out, stage):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 2
    stopped = time.monotonic()
    os.killpg(process.pid, signal.SIGINT) if whole_group else process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and time.monotonic() - stopped < SOON_S
    assert said.rstrip().endswith("interrupted; run the same command again to resume") and "Traceback" not in said
    assert not psutil.wait_procs(below, timeout=5)[1]
    there = len(rows_of(out))
    resumed = run_study(plan_study(base), out)
    assert resumed.reused == there and (there > 0) == (stage == "rows")
    run_study(plan_study(base), tmp_path / "alone")
    assert rows_of(out) == rows_of(tmp_path / "alone")
