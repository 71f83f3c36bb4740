#!/usr/bin/env python
"""Kills workers in the middle of sweeps, and compares the tables with those of a sweep in one process.

    python scripts/kill_workers.py --kills 20                                   # processes
    python scripts/kill_workers.py --executor ray --kills 20 --raylets 5        # actors, and whole nodes, of Ray

Sweeps of one small study run one after the other; meanwhile a worker is killed (SIGKILL) at random moments, until so
many kills have hit. With Ray, a cluster of two nodes on this machine is begun, and the raylet of the second node is
killed and begun again; of Ray nothing else on this machine is touched. Prints a line for each sweep; exit code 1 where
a row is lost, doubled or changed, or where sweeps end before anything can be killed.
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
from contextlib import contextmanager, nullcontext, suppress
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
RAYLET = "/raylet/raylet"
MOST_IDLE = 5  # sweeps one after the other in which nothing was killed
GOODBYE_S = 10.0
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


def found(*marks: str) -> list[psutil.Process]:
    """Processes whose command line holds all of some marks."""
    there = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if all(mark in line for mark in marks):
            there.append(process)
    return there


def below(processes: list[psutil.Process]) -> list[psutil.Process]:
    """All that these have started."""
    there: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.Error):
            there += process.children(recursive=True)
    return there


class Cluster:
    """Two nodes on this machine, each with one processor.

    Args:
        folder: of what Ray writes; its name is in the command line of all that belongs to the cluster.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # of a cluster and of who connects alike
        port = ADDRESS.rpartition(":")[2]
        started = ["--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
        ray("start", *started, f"--temp-dir={self._folder}")
        self._first = self.raylets
        self._begin_second()

    @property
    def raylets(self) -> list[psutil.Process]:
        """Of its nodes."""
        return found(RAYLET, self._folder)

    def _begin_second(self) -> None:
        ray("start", f"--address={ADDRESS}", "--num-cpus=1")

    def kill_second(self) -> None:
        """Kill the raylet of the second node, and begin another one."""
        for raylet in self.raylets:
            if raylet not in self._first:
                raylet.send_signal(signal.SIGKILL)
        self._begin_second()

    def stop(self) -> None:
        """End all that belongs to it."""
        there = found(self._folder)
        there += below(there)
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in there:
                with suppress(psutil.Error):
                    end(process)
            there = psutil.wait_procs(there, timeout=GOODBYE_S)[1]


def ray(*told: str) -> None:
    """A command of Ray."""
    subprocess.run([str(BIN / "ray"), *told], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster, which is ended."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        begun = Cluster(Path(folder))
        try:
            yield begun
        finally:
            begun.stop()


def run_and_kill(command: list[str], traces: Path, kill: list[str], mark: str, nodes: Cluster | None,
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
        parents = [psutil.Process(started.pid)] if nodes is None else nodes.raylets
        workers = [one for one in found(mark) if one in below(parents)]
        if not workers:
            continue
        if kill[len(killed)] == "worker":
            chance.choice(workers).send_signal(signal.SIGKILL)
        elif nodes is not None:
            nodes.kill_second()
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
    chance, wrong, number, idle = random.Random(given.seed), 0, 0, 0
    todo = ["worker"] * given.kills + ["raylet"] * given.raylets
    chance.shuffle(todo)
    with tempfile.TemporaryDirectory() as temporary, cluster() if given.executor == "ray" else nullcontext() as nodes:
        root = Path(temporary)
        for engine, said in ENGINES.items():
            alone, env = sweep(root / engine, said), with_traces(root / "traces")
            subprocess.run(alone, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while todo and idle < MOST_IDLE:
            engine = [*ENGINES][number % 2]
            out = root / f"{engine}-{number}"
            asked = [*ENGINES[engine], f"executor={given.executor}", "resources.workers=2"]
            asked += [f"resources.address={ADDRESS}"] if nodes is not None else []
            how = (root / f"traces-{number}", todo[:2], MARKS[given.executor], nodes, chance)
            code, killed = run_and_kill(sweep(out, asked), *how)
            expected, rows = rows_of(root / engine), rows_of(out)
            doubled, same = int(rows.duplicated(NAMES).sum()), code == 0 and rows.equals(expected)
            counted = f"{len(rows)} of {len(expected)} rows, {doubled} doubled, {'the' if same else 'NOT the'} same"
            print(f"{engine}: killed {' and '.join(killed) or 'nothing'}, exit code {code}, {counted}", flush=True)
            todo, wrong, number = todo[len(killed) :], wrong + (not same), number + 1
            idle = 0 if killed else idle + 1
    done = {what: asked - todo.count(what) for what, asked in (("worker", given.kills), ("raylet", given.raylets))}
    print(f"{done['worker']} workers and {done['raylet']} raylets killed in {number} sweeps: {wrong} of them differ")
    if todo:
        print(
            f"given up: {idle} sweeps one after the other ended before anything could be killed; {len(todo)} not done"
        )
    return 1 if wrong or todo else 0


if __name__ == "__main__":
    sys.exit(main())
