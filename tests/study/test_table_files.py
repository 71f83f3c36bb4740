"""A study's tables are the same, however few of its rows are in memory at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from support.engine_runs import study_of
from support.tiny_models import PairFolders

from specdraft.bench.curve import CostCurve
from specdraft.errors import ResultsError
from specdraft.results.study_tables import read_records
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.rows import StudyRows
from specdraft.study.run import run_study
from specdraft.study.table_files import write_tables

TEXTS = ("Once upon a time", "It was late", "def f(x):")
GRID = ["tree=kary,wide,best_first", "budget=2,4", "acceptance=topk,typical", "sampling=sample"]
MORE = ["sampling.temperature=0,1.0", "repeats=2", "output.steps=true", "max_new_tokens=5"]
CURVE = CostCurve([1, 2, 4], [1e-3, 1e-3, 2e-3], [5e-3, 6e-3, 7e-3], 5e-3, 1e-3, 5e-4, 2e-2, 1e-2, 1, "made up")
LIVE_AND_REPLAYED, EVERYTHING = 40, 10**6


@pytest.fixture(scope="module")
def plan(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> StudyPlan:
    return plan_study([*study_of(tiny_pair_folders, tmp_path_factory.mktemp("prompts"), TEXTS), *GRID, *MORE])


@pytest.fixture(scope="module")
def out(plan: StudyPlan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.mktemp("traces")))
        patch.setattr("specdraft.study.engines.replay.pair_costs", lambda *given: CURVE)
        folder = tmp_path_factory.mktemp("study")
        run_study(plan, folder)
        yield folder


def written(plan: StudyPlan, out: Path, folder: Path, at_once: int, records: str = "csv") -> dict[str, bytes]:
    """The tables of a study's rows, made again in another folder."""
    folder.mkdir()
    rows = StudyRows(plan, out)
    write_tables(folder, rows.tables(rows.current([]), at_once), "", records)
    rows.close()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "config.yaml"}


@pytest.mark.parametrize("at_once", [1, LIVE_AND_REPLAYED])
def test_pieces_are_the_whole(plan: StudyPlan, out: Path, tmp_path: Path, at_once: int) -> None:
    whole = written(plan, out, tmp_path / "whole", EVERYTHING)
    assert {"records.csv", "steps.csv", "sizes.csv", "nodes.csv", "comparisons.csv"} < set(whole)
    assert set(pd.read_csv(tmp_path / "whole" / "records.csv")["engine"]) == {"live", "replay"}
    assert written(plan, out, tmp_path / "pieces", at_once) == whole
    assert {name: (out / name).read_bytes() for name in whole} == whole


@pytest.mark.parametrize("at_once", [LIVE_AND_REPLAYED, EVERYTHING])
def test_parquet_says_the_same(plan: StudyPlan, out: Path, tmp_path: Path, at_once: int) -> None:
    assert "records.csv" not in written(plan, out, tmp_path / "parquet", at_once, "parquet")
    found, expected = read_records(tmp_path / "parquet"), read_records(out)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)


def test_live_rows_stand_in_the_order_of_the_prompts(plan: StudyPlan, out: Path, tmp_path: Path) -> None:
    """Whichever worker was the first."""
    lines = (out / "journal.jsonl").read_text().splitlines()
    rows = [line for line in lines if "row" in json.loads(line)]
    assert len(rows) > len(TEXTS)
    (tmp_path / "other").mkdir()
    others = [line for line in lines if line not in rows]
    (tmp_path / "other" / "journal.jsonl").write_text("\n".join([*others, *rows[::-1]]) + "\n")
    (tmp_path / "other" / "parts").symlink_to(out / "parts")
    found = written(plan, tmp_path / "other", tmp_path / "tables", EVERYTHING)
    assert found["records.csv"] == (out / "records.csv").read_bytes()


def test_nothing_is_replaced_before_all_is_whole(out: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1]})
    (tmp_path / "lengths.csv").write_text("before")

    def pieces() -> Iterator[dict[str, pd.DataFrame]]:
        yield {"lengths.csv": table, "records.csv": table}
        raise ResultsError("a part is gone")

    with pytest.raises(ResultsError, match="a part is gone"):
        write_tables(tmp_path, pieces(), "")
    assert [path.name for path in tmp_path.iterdir()] == ["lengths.csv"]
    assert (tmp_path / "lengths.csv").read_text() == "before"


@pytest.mark.parametrize("failing", [1, 2])
def test_nothing_is_replaced_where_the_end_of_one_cannot_be_written(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last file is closed first."""
    names, calls, fsync = ("lengths.csv", "nodes.csv"), [0], os.fsync
    for name in names:
        (tmp_path / name).write_text("before")

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr("specdraft.results.files.os.fsync", full)
    with pytest.raises(ResultsError, match=rf"/{names[-failing]}: cannot be written: No space left"):
        write_tables(tmp_path, [dict.fromkeys(names, pd.DataFrame({"a": [1]}))], "")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "before")


def test_the_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several that are open."""
    tables = {name: pd.DataFrame({"a": [1]}) for name in ("lengths.csv", "nodes.csv", "summary.csv")}
    tables["nodes.csv"].attrs["full"] = True

    def full(table: pd.DataFrame, header: bool) -> Iterator[str]:
        yield "a\n"
        if table.attrs:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("specdraft.study.table_files.csv_pieces", full)
    with pytest.raises(ResultsError, match=r"nodes\.csv: cannot be written: No space left"):
        write_tables(tmp_path, [dict.fromkeys(tables, tables["summary.csv"]), tables], "")
    assert list(tmp_path.iterdir()) == []
