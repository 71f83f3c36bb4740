"""`specdraft bench attention`: on tiny problems, with input that cannot be meant, and when it is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.command_line import Run, one_line

from specdraft.attention import contestants
from specdraft.bench import attention, attention_clock, attention_plan
from specdraft.commands.options import DONE, SOME_FAILED, USAGE
from specdraft.report.attention import AttentionReport
from specdraft.results.locks import locked

TINY = ["batch=1", "context=8,20", "nodes=3", "tree=chain,kary", "geometry=zoo", "max_rounds=2"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_clock, "COPIED", 2**12)


def test_a_row_for_every_contestant_and_cell_and_figures_with_words(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("bench", "attention", *TINY, "--out", out)
    assert done.code == DONE, done.err
    rows = pd.read_csv(out / "attention.csv")
    assert list(rows) == [
        "contestant", "geometry", "batch", "context", "nodes", "shape", "leaves", "dtype", "device",
        "median_s", "spread", "repeats", "max_rel_err", "gb_s", "copy_share", "decode_s", "note",
    ]  # fmt: skip
    timed = rows[rows["note"].isna()]
    assert len(timed) == 4 * 4 and (timed["median_s"] > 0).all() and (timed["max_rel_err"] < 1e-5).all()
    assert list(dict.fromkeys(timed["contestant"])) == ["sequential", "expanded", "dense", "merged"]
    assert set(rows[rows["note"].notna()]["contestant"]) == {"grouped"}  # the zoo's heads share no keys
    facts = json.loads((out / "attention.json").read_text())
    assert facts["device"] == "cpu" and facts["spec"]["context"] == [8, 20] and str(tmp_path) not in str(facts)
    for name in ("price-zoo", "speedup-zoo"):
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    words = (out / "attention.md").read_text()
    assert words.startswith("# Tree attention on a CPU (") and "figures/price-zoo.png" in words
    assert "| zoo | 1 | 20 | 3 | kary | 2 |" in words
    page = (out / "attention.html").read_text()
    assert "specdraftEmbed" in page and 'src="http' not in page and "<p>4 cells on a CPU (" in page
    assert "no GPU here" in done.out and "zoo, batch 1, context 20" in done.out


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("batch=0", "batch=0 is out of range; expected 1 or more"),
        ("batch=1,-2", "batch=-2 is out of range; expected 1 or more"),
        ("batch=two", "bench.batch"),
        ("batch=[]", "batch is empty; expected one value or more, such as batch=1,8"),
        ("context=-1", "context=-1 is out of range; expected 0 or more"),
        ("nodes=0", "nodes=0 is out of range; expected 1 or more"),
        ("nodes=9999", "nodes=9999 is out of range; expected at most 1024"),
        ("tree=chian", "tree=chian: there is no such tree; did you mean 'chain'?"),
        ("tree=best_first", "tree=best_first differs from step to step or is fitted; expected a fixed one"),
        ("geometry=llama", "geometry=llama: there is no such geometry"),
        ("contestants=tritno", "contestants=tritno: there is no such contestant; did you mean 'triton'?"),
        ("contestants=[]", "contestants is empty; expected some of sequential, "),
        ("dtype=int8", "dtype='int8' is not known"),
        ("device=cuda:9", "device=cuda:9: this machine has "),
        ("max_s=0", "max_s=0.0 is out of range; expected seconds, above 0"),
        ("max_rounds=1,2", "max_rounds=1,2: one value at a time"),
        ("budget=4", "budget=4: budget is not a key of bench attention"),
        ("bench=nothing", "bench=nothing: there is no such bench"),
        ("batch=interval(1,2)", "interval() has no end of values"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, override: str, why: str
) -> None:
    done = run("bench", "attention", *TINY, override, "--out", tmp_path / "out")
    assert done.code == USAGE
    assert why in one_line(done._replace(err=done.err.removeprefix("loading libraries ...\n")))
    assert not (tmp_path / "out").exists()


def test_a_grid_that_is_too_large_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_plan, "MOST_CELLS", 3)
    done = run("bench", "attention", *TINY, "--out", tmp_path / "out")
    assert done.code == USAGE and "error: the grid has 4 cells, more than 3; leave some out" in done.err


def test_one_that_breaks_down_leaves_the_others_and_a_failing_exit_code(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(problem: Any) -> Any:
        raise RuntimeError("does not compile")

    known = contestants.registry()
    broken = known | {"dense": known["dense"]._replace(prepare=breaks)}
    monkeypatch.setattr(contestants, "registry", lambda: broken)
    monkeypatch.setattr(AttentionReport, "charts", {})
    done = run("bench", "attention", *TINY, "context=8", "tree=kary", "--json", "--out", tmp_path / "out")
    assert done.code == SOME_FAILED
    rows = {row["contestant"]: row for row in json.loads(done.out)["rows"]}
    assert rows["dense"]["note"] == "failed: RuntimeError: does not compile" and rows["dense"]["median_s"] is None
    assert rows["merged"]["median_s"] > 0
    assert "`dense` in 1 cell: failed: RuntimeError: does not compile." in (tmp_path / "out/attention.md").read_text()


def test_where_none_can_run_the_exit_code_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttentionReport, "charts", {})
    only = ["contestants=triton", "device=cpu", "context=8", "tree=kary"]
    done = run("bench", "attention", *TINY, *only, "--json", "--out", tmp_path / "out")
    assert done.code == SOME_FAILED
    assert {row["note"] for row in json.loads(done.out)["rows"]} == {"not here: it needs a GPU"}


def test_what_is_measured_when_it_is_interrupted_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = attention.AttentionRun._measured

    def interrupted(self: Any, cell: Any, clock: Any) -> Any:
        if cell.context == 20:
            raise KeyboardInterrupt
        return measured(self, cell, clock)

    monkeypatch.setattr(attention.AttentionRun, "_measured", interrupted)
    monkeypatch.setattr(AttentionReport, "charts", {})
    done = run("bench", "attention", *TINY, "contestants=dense", "--out", tmp_path / "out")
    assert done.code == 130 and done.err.splitlines()[-1] == "interrupted"
    assert len(pd.read_csv(tmp_path / "out" / "attention.csv")) == 2


def test_two_do_not_write_one_folder(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with locked(out, "benchmark"):
        done = run("bench", "attention", *TINY, "--out", out)
    assert done.code == USAGE and f"{out}: another benchmark is writing here" in one_line(done)
    assert list(out.iterdir()) == []
