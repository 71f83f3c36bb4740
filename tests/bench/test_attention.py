"""Tree attention timed: who is checked, who is timed, and what stands in the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import pandas as pd
import pytest
import torch

from specdraft.attention.contestants import DECODE, Contestant, registry
from specdraft.attention.geometry import GEOMETRIES
from specdraft.attention.problem import make_problem, reference
from specdraft.bench import attention, attention_clock
from specdraft.bench.attention import AttentionRun, Row, made_ready, timed
from specdraft.bench.attention_clock import Call, CpuClock, copy_gb_s
from specdraft.bench.attention_plan import plan_attention
from specdraft.trees.topology import Topology

TREE = Topology([-1, 0, 0, 1])
TINY = ["batch=1", "context=8", "nodes=3", "tree=kary", "max_rounds=2"]


class Scripted:
    """A clock on which each call takes what it returns."""

    def __init__(self) -> None:
        self.order: list[Any] = []

    def turn(self, calls: Sequence[Call]) -> list[float]:
        self.order.append([call() for call in calls])
        return list(self.order[-1])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_clock, "COPIED", 2**12)


def one(name: str) -> Contestant:
    return registry()[name]


def test_contestants_take_turns_and_another_one_begins_each_round() -> None:
    clock = Scripted()
    calls = {one("dense"): lambda: 1.0, one("merged"): lambda: 2.0, DECODE: lambda: 4.0}
    seconds = timed(calls, clock, max_rounds=30, max_s=60)  # type: ignore[arg-type]
    assert clock.order == [[1, 2, 4], [2, 4, 1], [4, 1, 2], [1, 2, 4], [2, 4, 1]]  # five rounds, then all are steady
    assert seconds == {one("dense"): [1] * 5, one("merged"): [2] * 5, DECODE: [4] * 5}


def test_rounds_go_on_until_medians_are_steady_or_a_limit_is_met() -> None:
    unsteady = iter([1.0, 9.0] * 50)
    calls: Any = {DECODE: lambda: next(unsteady)}
    assert len(timed(calls, Scripted(), max_rounds=12, max_s=60)[DECODE]) == 12
    ticks = iter(range(0, 1000, 10))
    assert len(timed(calls, Scripted(), max_rounds=30, max_s=25, now=lambda: float(next(ticks)))[DECODE]) == 7
    assert timed({}, Scripted(), max_rounds=3, max_s=1) == {}


def test_a_wrong_contestant_is_marked_and_not_timed() -> None:
    problem = make_problem(GEOMETRIES["zoo"], 1, 500, TREE)
    right = reference(problem)
    other = made_ready(Contestant("off", lambda _: lambda: right * 1.001), problem, right)
    assert other.attend is None and other.error == pytest.approx(1e-3, rel=1e-3)
    assert other.note == "wrong: 0.001 off; expected at most 0.0001"
    close = made_ready(Contestant("close", lambda _: lambda: right * 1.00001), problem, right)
    assert close.attend is not None and close.note == ""


def test_one_that_breaks_down_is_marked() -> None:
    problem = make_problem(GEOMETRIES["zoo"], 1, 4, TREE)

    def breaks(_: Any) -> Any:
        raise RuntimeError("the compiler said:\n no")

    def fills(_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    expected = reference(problem)
    assert made_ready(Contestant("x", breaks), problem, expected).note == "failed: RuntimeError: the compiler said:"
    assert made_ready(Contestant("x", fills), problem, expected).note == "failed: out of memory"
    assert made_ready(one("triton"), problem, expected).note == "not here: it needs a GPU"


def test_rows(quick: None) -> None:
    run = AttentionRun(plan_attention([*TINY, "geometry=zoo,llama-3.2-1b", "contestants=dense,triton"]))
    run.run()
    dense, triton, *others = run.rows
    assert len(others) == 2 and not run.failed
    assert dense[:9] == ("dense", "zoo", 1, 8, 3, "kary", 2, "float32", "cpu")
    assert dense.repeats == 2 and dense.median_s > 0 and 0 <= dense.max_rel_err < 1e-5 and dense.note == ""
    moved = 4 * (2 * 5 * 12 * 32 + 2 * 5 * 4 * 32)
    assert dense.gb_s == pytest.approx(moved / dense.median_s / 1e9)
    assert dense.copy_share == pytest.approx(dense.gb_s / run.copy_gb_s)
    assert triton.note == "not here: it needs a GPU" and isnan(triton.median_s)
    assert dense.decode_s == triton.decode_s > 0
    table = run.table()
    assert list(table)[:9] == [
        "contestant",
        "geometry",
        "batch",
        "context",
        "nodes",
        "shape",
        "leaves",
        "dtype",
        "device",
    ]
    assert list(table)[9:15] == ["median_s", "spread", "repeats", "max_rel_err", "gb_s", "copy_share"]
    assert run.facts()["where"].startswith("a CPU (")


def test_a_contestant_with_another_trees_mask_is_found_at_a_long_context(quick: None) -> None:
    dense = one("dense")

    def other(problem: Any) -> Any:
        return dense.prepare(replace(problem, tree=Topology([-1, 0, 1, 2, 2])))

    plan = plan_attention(["batch=1", "context=3000", "nodes=4", "tree=chain", "contestants=dense", "max_rounds=1"])
    plan.contestants[:] = [dense._replace(prepare=other)]
    run = AttentionRun(plan)
    run.run()
    assert run.failed and run.rows[0].note.startswith("wrong: 0.")


def test_a_cell_that_does_not_fit_is_skipped_with_its_size(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "free_memory", lambda device: 2**30)
    run = AttentionRun(plan_attention(["batch=1", "context=8,100000000", "nodes=2", "tree=chain", "max_rounds=1"]))
    run.run()
    assert [row.note for row in run.rows[:5]] == ["", "", "", "not here: no heads share keys: it is dense", ""]
    assert {row.note for row in run.rows[5:]} == {"skipped: needs 493.6 GiB, 1.0 GiB are free"}
    assert not run.failed


def test_what_there_is_no_time_for_is_counted(quick: None) -> None:
    plan = plan_attention(["batch=1,2,3", "context=8", "nodes=2", "tree=chain", "max_rounds=1", "total_s=5"])
    ticks = iter([0.0, 1.0, 6.0, 7.0])
    run = AttentionRun(plan, now=lambda: next(ticks))
    run.run()
    assert (run.left_out, len({row.batch for row in run.rows}), run.wall_s) == (2, 1, 7.0)


def test_sizes_of_trees() -> None:
    plan = plan_attention(["nodes=2,5", "tree=chain,medusa", "geometry=zoo", "batch=1", "context=8"])
    shapes = [(cell.named.shape, cell.named.tree.num_nodes, cell.named.leaves) for cell in plan.cells]
    assert shapes == [("chain", 2, 1), ("chain", 5, 1), ("medusa", 63, 42)]
    assert [one.name for one in plan.contestants] == ["sequential", "expanded", "dense", "grouped", "merged"]


def test_the_bandwidth_of_a_copy(quick: None) -> None:
    assert copy_gb_s(torch.device("cpu"), CpuClock()) > 0.01
    clock = type("Fixed", (), {"turn": lambda self, calls: [4096e-9 for _ in calls]})()
    assert copy_gb_s(torch.device("cpu"), clock) == pytest.approx(2)


def test_a_row_that_went_wrong() -> None:
    row = Row("dense", "zoo", 1, 8, 3, "kary", 2, "float32", "cpu")
    notes = {"": False, "wrong: x": True, "failed: x": True, "skipped: x": False, "not here: x": False}
    assert {note: row._replace(note=note).went_wrong for note in notes} == notes
    assert pd.DataFrame([row])["median_s"].isna().all()


@pytest.mark.gpu
def test_events_time_a_gpu(quick: None) -> None:
    plan = plan_attention(
        [*TINY, "batch=2", "context=1000", "geometry=llama-3.2-1b", "contestants=dense,merged,triton"]
    )
    run = AttentionRun(plan)
    run.run()
    assert not run.failed and all(row.median_s > 0 and row.dtype == "bfloat16" for row in run.rows), run.rows
