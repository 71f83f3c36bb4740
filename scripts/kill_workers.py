#!/usr/bin/env python
"""Kills workers in the middle of sweeps, and compares the tables with those of a sweep in one process.

    python scripts/kill_workers.py --kills 20                                   # processes
    python scripts/kill_workers.py --executor ray --kills 20 --raylets 5        # actors, and whole nodes, of Ray

Sweeps of one small study run one after the other; meanwhile a worker is killed (SIGKILL) at random moments, until so
many kills have hit. With Ray, a cluster of two nodes on this machine is begun, and the raylet of the second node is
killed and begun again. Prints a line for each sweep; exit code 1 where a row is lost, doubled or changed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pandas as pd
import psutil

STUDY = [
    "name=killed", "pair=zoo-tiny", "tree=chain,kary,sequoia,best_first", "budget=2,4,8", "prompts.limit=10",
    "max_new_tokens=48", "report=false",
]  # fmt: skip
ENGINES = {"replay": ["engine=replay", "cost.measure=off"], "live": ["engine=live"]}
NAMES = ["combination", "prompt_id", "repeat"]
COUNTS = ["steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens"]
BETWEEN_S = (1.0, 6.0)  # a worker is killed so long after it was seen, or after the last one
MARKS = {"processes": "spawn_main", "ray": "ray::Hand"}  # what the command lines of workers hold
ADDRESS = "127.0.0.1:6399"
BIN = Path(sys.executable).parent


def sweep(folder: Path, asked: list[str]) -> list[str]:
    """A command."""
    return [str(BIN / "specdraft"), "sweep", *STUDY, *asked, "--out", str(folder)]


def with_traces(folder: Path) -> dict[str, str]:
    """This process's environment with traces of its own."""
    return os.environ | {"SPECDRAFT_TRACES": str(folder)}


def rows_of(folder: Path) -> pd.DataFrame:
    """The rows of a study in one order."""
    return pd.read_csv(folder / "records.csv")[NAMES + COUNTS].sort_values(NAMES).reset_index(drop=True)


def found(mark: str) -> list[psutil.Process]:
    """Processes whose command line holds a mark."""
    there = []
    for process in psutil.process_iter():
        try:
            if mark in " ".join(process.cmdline()):
                there.append(process)
        except psutil.Error:
            continue
    return there


def started_by(pid: int, process: psutil.Process) -> bool:
    """Whether a process is below another one."""
    try:
        return any(parent.pid == pid for parent in process.parents())
    except psutil.Error:
        return False


class SecondNode:
    """The second node of a cluster on this machine."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin it, or begin it again."""
        before = {process.pid for process in found("/raylet/raylet")}
        ray("start", f"--address={ADDRESS}", "--num-cpus=1")
        self.raylets = [process for process in found("/raylet/raylet") if process.pid not in before]

    def kill(self) -> None:
        """Kill its raylet, and begin another one."""
        for raylet in self.raylets:
            raylet.send_signal(signal.SIGKILL)
        self.begin()


def ray(*told: str) -> None:
    """A command of Ray."""
    subprocess.run([str(BIN / "ray"), *told], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def cluster() -> Iterator[SecondNode]:
    """A cluster of two nodes, each with one processor, on this machine."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # of a cluster and of who connects alike
    port = ADDRESS.rpartition(":")[2]
    ray("start", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false")
    try:
        yield SecondNode()
    finally:
        ray("stop", "--force")


def run_and_kill(command: list[str], traces: Path, kill: list[str], mark: str, node: SecondNode | None,
                 chance: random.Random) -> tuple[int, list[str]]:  # fmt: skip
    """The sweep's exit code, and what was killed of what was to be: `worker` or `raylet`."""
    said = traces.with_suffix(".txt")
    with said.open("w") as file:
        started = subprocess.Popen(command, env=with_traces(traces), stdout=subprocess.DEVNULL, stderr=file)
    killed, due = list[str](), time.monotonic() + 6 + chance.uniform(*BETWEEN_S)
    while started.poll() is None:
        time.sleep(0.1)
        if len(killed) == len(kill) or time.monotonic() < due:
            continue
        workers = [one for one in found(mark) if node is not None or started_by(started.pid, one)]
        if not workers:
            continue
        if kill[len(killed)] == "worker":
            chance.choice(workers).send_signal(signal.SIGKILL)
        elif node is not None:
            node.kill()
        killed.append(kill[len(killed)])
        due = time.monotonic() + chance.uniform(*BETWEEN_S)
    if started.returncode:
        print(said.read_text()[-500:], flush=True)
    return started.returncode, killed


def main() -> int:
    """Runs and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--raylets", type=int, default=0)
    parser.add_argument("--executor", choices=MARKS, default="processes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, wrong, number = random.Random(given.seed), 0, 0
    todo = ["worker"] * given.kills + ["raylet"] * given.raylets
    chance.shuffle(todo)
    with tempfile.TemporaryDirectory() as temporary, cluster() if given.executor == "ray" else nullcontext() as node:
        root = Path(temporary)
        for engine, said in ENGINES.items():
            alone, env = sweep(root / engine, said), with_traces(root / "traces")
            subprocess.run(alone, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while todo:
            engine = [*ENGINES][number % 2]
            out = root / f"{engine}-{number}"
            asked = [*ENGINES[engine], f"executor={given.executor}", "resources.workers=2"]
            asked += [f"resources.address={ADDRESS}"] if node is not None else []
            how = (root / f"traces-{number}", todo[:2], MARKS[given.executor], node, chance)
            code, killed = run_and_kill(sweep(out, asked), *how)
            expected, rows = rows_of(root / engine), rows_of(out)
            doubled, same = int(rows.duplicated(NAMES).sum()), code == 0 and rows.equals(expected)
            counted = f"{len(rows)} of {len(expected)} rows, {doubled} doubled, {'the' if same else 'NOT the'} same"
            print(f"{engine}: killed {' and '.join(killed) or 'nothing'}, exit code {code}, {counted}", flush=True)
            todo, wrong, number = todo[len(killed) :], wrong + (not same), number + 1
    print(f"{given.kills} workers and {given.raylets} raylets killed in {number} sweeps: {wrong} of them differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
