"""How far a study is, seen from outside: read only, whatever its sweep is doing meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from specdraft.errors import ResultsError
from specdraft.results.files import MANIFEST
from specdraft.study.failures import FILE as FAILURES
from specdraft.study.run_note import FILE, is_alive

RUNNING, COMPLETE, INCOMPLETE, KILLED = "running", "complete", "incomplete", "killed"
ELSEWHERE, WRITTEN = "on another machine", "written"
MEANINGS = {
    RUNNING: "its sweep is at work",
    COMPLETE: "nothing is left to do",
    INCOMPLETE: "its sweep ended before all was done; the same command goes on",
    KILLED: "its sweep is gone without having ended; the same command goes on",
    WRITTEN: "its tables are there; how far its last sweep came was not noted",
    ELSEWHERE: "its sweep is, or was, on another machine: whether it is alive cannot be told here",
}


@dataclass(frozen=True)
class StudyStatus:
    """What is known of a study.

    Attributes:
        study: its name.
        state: one of `MEANINGS`.
        pid: of the last sweep; None where it left no note.
        rows: `due`, `reused`, `done`, `given_up`; None where nobody noted them.
        rows_left: that are neither there nor given up.
        elapsed_s: of the last sweep, until now or until its last note.
        noted_s: seconds since that note.
        rows_per_s: rows done a second, preparations included; None before the first.
        left_s: seconds left, by the sweep's own reckoning; None where it is not running, or does not know yet.
        stages: in their order, with `state` `over`, `now`, `begun`, `to come` or `broken off`.
        workers: of an executor that has some, and what each is doing; empty where it is not running.
        failed: how many combinations; `failures` of them, each `what` and `error`.
    """

    study: str
    folder: str
    state: str
    pid: int | None
    rows: dict[str, int] | None
    rows_left: int | None
    elapsed_s: float | None
    noted_s: float | None
    rows_per_s: float | None
    left_s: float | None
    stages: list[dict[str, Any]]
    failed: int
    failures: list[dict[str, str]]
    workers: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def study_status(folder: Path, now: float | None = None) -> StudyStatus:
    """Read a study's folder.

    Args:
        folder: of a study that runs, ended or was killed.
        now: seconds since 1970.

    Raises:
        ResultsError: it holds no study.
    """
    name = _study_name(folder)
    failures = _failures(folder)
    note = _note(folder / FILE)
    if note is None:  # an earlier version's, or somebody else's copy
        state = WRITTEN if (folder / "summary.csv").exists() else INCOMPLETE
        empty = (None,) * 7
        return StudyStatus(name, str(folder), state, *empty, [], len(failures), failures)
    now, rows = time.time() if now is None else now, note["rows"]
    left = max(0, rows["due"] - rows["reused"] - rows["done"] - rows["given_up"])
    state = _state(note, left)
    noted_s, running = max(0.0, now - note["updated"]), state == RUNNING
    elapsed_s = max(0.0, note["updated"] - note["started"]) + (noted_s if running else 0.0)
    left_s = note.get("left_s")
    if note["ended"]:
        note = note | {"failed": len(failures), "failures": failures}
    return StudyStatus(
        study=name,
        folder=str(folder),
        state=state,
        pid=note["pid"],
        rows=rows,
        rows_left=left,
        elapsed_s=round(elapsed_s, 1),
        noted_s=round(noted_s, 1),
        rows_per_s=rows["done"] / elapsed_s if rows["done"] and elapsed_s else None,
        left_s=max(0.0, left_s - noted_s) if running and left_s is not None else None,
        stages=note["stages"] if running else [_broken_off(stage) for stage in note["stages"]],
        failed=note["failed"],
        failures=note["failures"],
        workers=note.get("workers", {}) if running else {},
    )


def _broken_off(stage: Mapping[str, Any]) -> dict[str, Any]:
    return dict(stage) | ({"state": "broken off"} if stage.get("state") == "now" else {})


def _state(note: Mapping[str, Any], left: int) -> str:
    if note["ended"]:
        return INCOMPLETE if left or note["rows"]["given_up"] else COMPLETE
    alive = is_alive(note)
    return ELSEWHERE if alive is None else RUNNING if alive else KILLED


def _study_name(folder: Path) -> str:
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; expected the folder of a study")
    try:
        study = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["study"]
        return str(study["name"])
    except FileNotFoundError as error:
        raise ResultsError(f"{folder}: holds no study ({MANIFEST} is missing)") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResultsError(f"{folder / MANIFEST}: is not a study's, or cannot be read") from error


def _note(path: Path) -> dict[str, Any] | None:
    """A sweep's note; None where there is none that can be used."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        numbers = [note[name] for name in ("pid", "updated", "started", "failed")]
        numbers += [note["rows"][name] for name in ("due", "reused", "done", "given_up")]
        whole = all(isinstance(number, int | float) and isfinite(number) for number in numbers)
        lists = isinstance(note["stages"], list) and isinstance(note["failures"], list)
        lists = lists and isinstance(note.get("workers", {}), dict)
        return note if whole and lists and {"ended", "machine", "process_started"} <= set(note) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _failures(folder: Path) -> list[dict[str, str]]:
    """Of earlier sweeps, and of the last one where it ended; lines that cannot be read are passed over."""
    try:
        lines = (folder / FAILURES).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        try:
            failure = json.loads(line)
            found.append({"what": str(failure["overrides"]), "error": str(failure["error"])})
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found
