"""How far a sweep is, asked from another process, at any moment of its life."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run, one_line
from support.tiny_models import PairFolders

from specdraft.study.plan import plan_study
from specdraft.study.progress import Progress
from specdraft.study.run import run_study
from specdraft.study.run_note import FILE, NotedProgress, is_alive, this_process
from specdraft.study.status import COMPLETE, ELSEWHERE, INCOMPLETE, KILLED, RUNNING, WRITTEN, StudyStatus, study_status
from specdraft.study.timeline import Stage

STAGES = [Stage("zoo", "record", "tokens", 100, 10.0), Stage("zoo", "replay", "rows", 20, 4.0)]


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def study_in(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"study": {"name": "mine"}}))
    return folder


def half_way(folder: Path, now: Clock, shown: Progress | None = None) -> NotedProgress:
    """A sweep of 25 rows: 5 were there, 12 are done, 3 given up."""
    noted = NotedProgress(shown or Progress(), folder, now=now, every_s=0.0)
    noted.start(25, 5)
    noted.plan(STAGES)
    noted.pair("zoo")
    noted.stage("record", 100, "tokens")
    noted.done(100)
    noted.stage("replay", 20, "rows")
    now.at += 6
    noted.advance(12)
    noted.failed("zoo kary budget=4", "boom")
    noted.given_up(3)
    return noted


def test_while_it_runs(tmp_path: Path) -> None:
    half_way(study_in(tmp_path), now := Clock())
    status = study_status(tmp_path, now=now.at + 4)
    assert (status.study, status.state, status.pid) == ("mine", RUNNING, os.getpid())
    assert (status.rows, status.rows_left) == ({"due": 25, "reused": 5, "done": 12, "given_up": 3}, 5)
    assert (status.elapsed_s, status.noted_s, status.rows_per_s) == (10.0, 4.0, 1.2)
    assert [(stage["name"], stage["done"], stage["state"]) for stage in status.stages] == [
        ("record", 100, "over"),
        ("replay", 15, "now"),
    ]
    assert (status.failed, status.failures) == (1, [{"what": "zoo kary budget=4", "error": "boom"}])


def test_after_its_end(tmp_path: Path) -> None:
    half_way(study_in(tmp_path), Clock()).__exit__(None, None, None)
    (tmp_path / "failures.jsonl").write_text('{"overrides": "tree=kary", "error": "boom"}\n{"torn\n')
    status = study_status(tmp_path)
    assert (status.state, status.left_s, status.failed) == (INCOMPLETE, None, 1)
    assert status.failures == [{"what": "tree=kary", "error": "boom"}]
    with NotedProgress(Progress(), tmp_path) as whole:
        whole.start(3, 1)
        whole.advance(2)
    assert study_status(tmp_path).state == COMPLETE


@pytest.mark.parametrize(
    ("changed", "state"),
    [({"machine": "other"}, ELSEWHERE), ({"process_started": 1.0}, KILLED), ({"pid": 2**22 + 1}, KILLED)],
)
def test_whose_process_it_was(changed: dict[str, Any], state: str, tmp_path: Path) -> None:
    """A process of the same number that began at another time is another one."""
    half_way(study_in(tmp_path), Clock())
    note = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(note | changed))
    status = study_status(tmp_path)
    assert (status.state, status.left_s) == (state, None)
    assert status.stages[1]["state"] == "broken off"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1, "rows": {}}', "\x00", '{"pid": NaN}'])
def test_a_note_that_cannot_be_used_is_none(text: str, tmp_path: Path) -> None:
    (study_in(tmp_path) / FILE).write_text(text)
    assert study_status(tmp_path).state == INCOMPLETE
    (tmp_path / "summary.csv").write_text("pair\n")
    status = study_status(tmp_path)
    assert (status.state, status.rows, status.stages) == (WRITTEN, None, [])


def test_the_front_end_is_told_all(tmp_path: Path) -> None:
    heard: list[str] = []

    class Front(Progress):
        def __getattribute__(self, name: str) -> Any:
            heard.append(name)
            return super().__getattribute__(name)

    noted = half_way(tmp_path, Clock(), Front())
    noted.ready(1)
    noted.note("n")
    noted.spent_s()
    assert {"start", "plan", "pair", "stage", "done", "advance", "failed", "given_up", "ready", "note", "spent_s"} <= {
        *heard
    }


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    half_way(tmp_path / "gone", Clock())


def test_a_process_that_is_over_is_not_alive() -> None:
    mine = this_process()
    assert is_alive(mine) is True
    assert is_alive(mine | {"machine": "x"}) is None
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert is_alive(mine | {"pid": child.pid}) is False


def live_study(folders: PairFolders) -> list[str]:
    pair = [f"pair.{role}.path={folder}" for role, folder in folders._asdict().items()]
    return [*pair, "tree=chain", "budget=2,4", "max_prompt_tokens=32", "engine=live", "report=false", "name=mine"]


def test_a_sweep_is_seen_at_work_and_as_complete(tiny_pair_folders: PairFolders, tmp_path: Path) -> None:
    seen: list[StudyStatus] = []

    class Asking(Progress):
        def advance(self, rows: int) -> None:
            seen.append(study_status(tmp_path))

    plan = plan_study([*live_study(tiny_pair_folders), "max_new_tokens=4", "prompts.limit=3"])
    run_study(plan, tmp_path, progress=Asking())
    assert {status.state for status in seen} == {RUNNING}
    after = study_status(tmp_path)
    assert (after.state, after.rows_left, after.rows) == (
        COMPLETE,
        0,
        {"due": 6, "reused": 0, "done": 6, "given_up": 0},
    )
    run_study(plan, tmp_path)
    assert study_status(tmp_path).rows == {"due": 6, "reused": 6, "done": 0, "given_up": 0}


@pytest.mark.slow
def test_a_killed_sweep(run: Run, tiny_pair_folders: PairFolders, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from specdraft.cli import main; main()", "sweep", *live_study(tiny_pair_folders)]
    sweep = subprocess.Popen([*command, "--out", str(tmp_path)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while sweep.poll() is None:
            if (tmp_path / FILE).exists() and json.loads((tmp_path / FILE).read_text())["rows"]["done"]:
                break
            time.sleep(0.05)
        said = run("status", tmp_path)
        assert said.code == 0 and "mine (" in said.out and ": running," in said.out, said
    finally:
        sweep.kill()
        sweep.wait()
    told = json.loads(run("status", tmp_path, "--json").out)
    assert (told["state"], told["pid"]) == (KILLED, sweep.pid)
    assert 0 < told["rows"]["done"] < told["rows"]["due"] == 2 * 80
    assert "killed, its sweep is gone" in run("status", tmp_path).out


def test_what_is_no_study(run: Run, tmp_path: Path) -> None:
    assert "holds no study" in one_line(run("status", tmp_path))
    assert "no such folder" in one_line(run("status", tmp_path / "none"))
    (tmp_path / "manifest.json").write_text('{"study": 1}')
    assert "is not a study's" in one_line(run("status", tmp_path))
