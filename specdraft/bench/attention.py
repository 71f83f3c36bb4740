"""Tree attention timed: in each cell all contestants solve the same problem, are checked, and then take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import isnan, nan
from typing import Any, NamedTuple

import pandas as pd
import torch

from specdraft.attention.contestants import DECODE, Attend, Contestant
from specdraft.attention.geometry import GEOMETRIES
from specdraft.attention.problem import (
    ROOT_ALONE,
    Problem,
    make_problem,
    moved_bytes,
    needed_bytes,
    reference,
    worst_error,
)
from specdraft.bench.attention_clock import Clock, clock_of, copy_gb_s
from specdraft.bench.attention_plan import AttentionPlan, Cell, NamedTree
from specdraft.bench.measuring import Timing, steady
from specdraft.models.memory import free_cached, out_of_memory
from specdraft.models.self_check import free_memory
from specdraft.results.manifest import environment
from specdraft.traces.watch import UNWATCHED, Watch

FEWEST_ROUNDS = 5
MOST_WRONG = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-2}  # of one query's output
SHARE_OF_MEMORY = 0.8  # of what is free
ROOT = NamedTree("root", ROOT_ALONE)
WRONG, FAILED, SKIPPED, NOT_HERE = "wrong", "failed", "skipped", "not here"


class Row(NamedTuple):
    """One contestant in one cell; what was not measured is nan, and `note` says why.

    Attributes:
        nodes: draft nodes.
        median_s, spread: seconds of one call, and the quartiles' distance as a share of it.
        max_rel_err: see `worst_error`.
        gb_s: bytes that have to be moved at least, 10^9 a second; `copy_share`: as a share of a large copy's.
        decode_s: what one query takes at the same place, in the same turns.
    """

    contestant: str
    geometry: str
    batch: int
    context: int
    nodes: int
    shape: str
    leaves: int
    dtype: str
    device: str
    median_s: float = nan
    spread: float = nan
    repeats: int = 0
    max_rel_err: float = nan
    gb_s: float = nan
    copy_share: float = nan
    decode_s: float = nan
    note: str = ""

    @property
    def went_wrong(self) -> bool:
        """Whether the contestant should have run, and did not or not rightly."""
        return self.note.startswith((WRONG, FAILED))


class Ready(NamedTuple):
    """A contestant before it is timed; `attend` is None where it is not going to be."""

    problem: Problem
    attend: Attend | None
    error: float = nan
    note: str = ""


@dataclass
class AttentionRun:
    """A benchmark while it runs and after it: what was measured is there when it is interrupted.

    Attributes:
        copy_gb_s: of a large copy, see there.
        left_out: cells for which there was no time.
        wall_s: seconds of all.
    """

    plan: AttentionPlan
    rows: list[Row] = field(default_factory=list)
    copy_gb_s: float = nan
    left_out: int = 0
    wall_s: float = 0.0
    now: Callable[[], float] = time.perf_counter

    @torch.no_grad()
    def run(self, watch: Watch = UNWATCHED) -> None:
        """Measure every cell that there is time for."""
        began, clock = self.now(), clock_of(self.plan.device)
        self.copy_gb_s = copy_gb_s(self.plan.device, clock)
        watch.stage("cells", len(self.plan.cells), "cells")
        try:
            for number, cell in enumerate(self.plan.cells):
                if self.now() - began > (self.plan.spec.total_s or float("inf")):
                    self.left_out = len(self.plan.cells) - number
                    return
                self.rows += self._measured(cell, clock)
                watch.done(1)
        finally:
            self.wall_s = self.now() - began

    @property
    def failed(self) -> bool:
        """Whether any contestant was wrong, or broke down, or none could run."""
        return any(row.went_wrong for row in self.rows) or all(isnan(row.median_s) for row in self.rows)

    def table(self) -> pd.DataFrame:
        """The rows."""
        return pd.DataFrame(self.rows, columns=Row._fields)

    def facts(self) -> dict[str, Any]:
        """What was run, on what."""
        hardware = environment()
        device = self.plan.device
        if device.type == "cuda":
            where = torch.cuda.get_device_name(device)
        else:
            threads = torch.get_num_threads()
            where = f"a CPU ({hardware['hardware']['cpu']}, {threads} thread{'' if threads == 1 else 's'})"
        return {
            "where": where,
            "device": device.type,
            "dtype": str(self.plan.dtype).removeprefix("torch."),
            "copy_gb_s": self.copy_gb_s,
            "cells_left_out": self.left_out,
            "wall_s": round(self.wall_s, 1),
            "spec": asdict(self.plan.spec),
            "environment": hardware,
        }

    def _measured(self, cell: Cell, clock: Clock) -> list[Row]:
        if note := self._too_large(cell):
            return [self._row(one, cell, note=note) for one in self.plan.contestants]
        tree = cell.named.tree
        geometry = GEOMETRIES[cell.geometry]
        where = {"dtype": self.plan.dtype, "device": self.plan.device, "seed": self.plan.spec.seed}
        problem = make_problem(geometry, cell.batch, cell.context, tree, **where)  # type: ignore[arg-type]
        expected = reference(problem)
        ready = {DECODE: made_ready(DECODE, problem.root_alone, expected[:, :, :1])}
        ready |= {one: made_ready(one, problem, expected) for one in self.plan.contestants}
        spec = self.plan.spec
        seconds = timed({one: r.attend for one, r in ready.items() if r.attend}, clock, spec.max_rounds, spec.max_s)
        return list(self._rows(cell, ready, {one: Timing.of(list(taken)) for one, taken in seconds.items()}, seconds))

    def _too_large(self, cell: Cell) -> str:
        """Why a cell is skipped, if it is."""
        size = torch.empty(0, dtype=self.plan.dtype).element_size()
        needed = needed_bytes(GEOMETRIES[cell.geometry], cell.batch, cell.context, len(cell.named.tree), size)
        free_cached()
        free = free_memory(self.plan.device)
        fits = needed <= SHARE_OF_MEMORY * free
        return "" if fits else f"{SKIPPED}: needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"

    def _rows(
        self,
        cell: Cell,
        ready: Mapping[Contestant, Ready],
        timings: Mapping[Contestant, Timing],
        seconds: Mapping[Contestant, list[float]],
    ) -> Iterator[Row]:
        plain = timings[DECODE].median if DECODE in timings else nan
        for one, made in ready.items():
            row = self._row(one, cell._replace(named=ROOT) if one is DECODE else cell, made.note)
            if one is DECODE and not made.note:
                continue  # it is in every row
            row = row._replace(max_rel_err=made.error, decode_s=plain)
            if one in timings:
                median, low, high = timings[one]
                gb_s = moved_bytes(made.problem) / median / 1e9
                row = row._replace(median_s=median, spread=(high - low) / median, repeats=len(seconds[one]))
                row = row._replace(gb_s=gb_s, copy_share=gb_s / self.copy_gb_s)
            yield row

    def _row(self, contestant: Contestant, cell: Cell, note: str) -> Row:
        named = cell.named
        where = cell.geometry, cell.batch, cell.context, named.tree.num_nodes, named.shape, named.leaves
        dtype = str(self.plan.dtype).removeprefix("torch.")
        return Row(contestant.name, *where, dtype, self.plan.device.type, note=note)


def made_ready(contestant: Contestant, problem: Problem, expected: torch.Tensor) -> Ready:
    """Prepare a contestant and hold its output against what it should be; whatever it raises is in its note."""
    if why := contestant.why_not(problem):
        return Ready(problem, None, note=f"{NOT_HERE}: {why}")
    try:
        attend = contestant.prepare(problem)
        attend()
        error = worst_error(attend(), expected)
    except Exception as error_:  # another contestant may still run
        return Ready(problem, None, note=f"{FAILED}: {in_a_line(error_)}")
    most = MOST_WRONG[problem.query.dtype]
    if error > most:
        return Ready(problem, None, error, f"{WRONG}: {error:.2g} off; expected at most {most:g}")
    return Ready(problem, attend, error)


def in_a_line(error: Exception) -> str:
    """What went wrong; where memory ran out, what is cached is freed for what comes next."""
    if out_of_memory(error):
        free_cached()
        return "out of memory"
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def timed(
    attends: Mapping[Contestant, Attend],
    clock: Clock,
    max_rounds: int,
    max_s: float,
    now: Callable[[], float] = time.perf_counter,
) -> dict[Contestant, list[float]]:
    """Seconds of every round, until all medians are steady; the one that begins moves on by one each time."""
    names, began = list(attends), now()
    seconds: dict[Contestant, list[float]] = {one: [] for one in names}
    for number in range(max_rounds):
        if number >= FEWEST_ROUNDS and (now() - began > max_s or all(map(steady, seconds.values()))):
            break
        first = number % max(len(names), 1)
        order = names[first:] + names[:first]
        for one, taken in zip(order, clock.turn([attends[one] for one in order]), strict=True):
            seconds[one].append(taken)
    return seconds
