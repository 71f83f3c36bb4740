from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import specdraft
from specdraft.errors import ResultsError
from specdraft.results.comparisons import comparisons
from specdraft.results.files import FILES, to_csv
from specdraft.results.journal import Row
from specdraft.results.metrics import Tally
from specdraft.results.study_tables import COLUMNS, TEXT, StudyTables, load_study, read_records
from specdraft.results.tables import COMBINATION_KEYS, build_tables

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
KEPT = ("reliability", "offsets", "ablation")  # which not every study has
TABLES = [name for file in FILES if (name := file.removesuffix(".csv")) != file and name not in KEPT]
ALWAYS = [name for name in TABLES if name not in ("sizes", "steps")]
WHOLE = ("budget", "nodes", "depth", "top_k", "max_new_tokens", "batch", "cost_context", "cost_batch", "turn", "repeat",
         "seed")  # fmt: skip
NUMBERS = {"budget": 2, "nodes": 2, "depth": 2, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "max_new_tokens": 64}
NUMBERS |= {"batch": 1, "cost_context": 128, "cost_batch": 1}


def tally(share: float) -> Tally:
    """Of a prompt of which every count is a fraction, as under replayed sampling."""
    counted = Tally(3 + share, 6 + 2 * share, 2 * share, 3 + share, 9)
    counted.lengths, counted.positions = Counter({0: 2, 2: 1}), {1: [3 + share, share], 2: [share, share / 2]}
    counted.sizes = Counter({2: 2, 1: 1})
    counted.nodes = {(0,): [3 + share, share], (1,): [3.0, 0.25], (0, 0): [share, share / 2]}
    return counted


def write(folder: Path, steps: bool = False) -> Path:
    """A study of two trees on two prompts; labels that a reader could take for something else."""
    combinations = {
        name: dict.fromkeys(COMBINATION_KEYS, "NA") | NUMBERS | {"combination": name, "tree": tree, "seed": 0}
        for name, tree in (("000000000012", "kary"), ("00000000001e", "chain"))
    }
    listed = [[0, 2, 1, 1, 0], [1, 2, 0, 1, 1]] if steps else None
    rows = [
        Row(name, ("w", "w"), prompt, "007", 0, tally(share), None, listed)
        for name, shares in zip(combinations, ((0.25, 0.5), (0.5, 1 / 3)), strict=True)
        for prompt, share in zip(("01", "1e3"), shares, strict=True)
    ]
    tables = build_tables(rows, combinations)
    tables["comparisons.csv"] = comparisons(tables["records.csv"])
    for file, table in tables.items():
        (folder / file).write_text(to_csv(table), encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps({"study": {"name": "made"}, "prompts": 2}))
    (folder / "config.yaml").write_text("name: made\ntree: {kind: kary, k: 2}\n")
    return folder


def test_the_tables_are_what_was_written(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, steps=True))
    for name in TABLES:
        table = getattr(study, name)
        assert not table.empty
        assert to_csv(table) == (tmp_path / f"{name}.csv").read_text(encoding="utf-8")
    assert (study.folder, study.reliability, study.offsets, study.ablation) == (tmp_path, None, None, None)
    assert (study.manifest["prompts"], study.config["tree"]) == (2, {"kind": "kary", "k": 2})


def test_a_study_has_every_table_that_a_sweep_writes() -> None:
    assert {field.name for field in fields(StudyTables)} == {"folder", "manifest", "config", *KEPT, *TABLES}
    assert set(COLUMNS) == {f"{name}.csv" for name in TABLES}


@pytest.mark.parametrize("read", [lambda folder: load_study(str(write(folder))), lambda _: load_study(REFERENCE)])
def test_types_do_not_depend_on_what_a_column_holds(read: Callable[[Path], StudyTables], tmp_path: Path) -> None:
    study = read(tmp_path)
    for name in ALWAYS:
        for column, values in getattr(study, name).items():
            if column in TEXT:
                assert all(isinstance(value, str) for value in values)
            else:
                whole = column in WHOLE or (name, column) in {("lengths", "acceptance_length"), ("siblings", "rank")}
                assert values.dtype == ("int64" if whole else "float64")
    assert study.steps is None


def test_labels_are_text_and_empty_ratios_are_no_numbers(tmp_path: Path) -> None:
    records = load_study(write(tmp_path)).records
    assert records["combination"].unique().tolist() == ["000000000012", "00000000001e"]
    assert records["prompt_id"].unique().tolist() == ["01", "1e3"]
    assert set(records["category"]) == {"007"}
    assert set(records["pair"]) == {"NA"}
    assert records[["wall_s", "speedup", "tokens_per_s"]].isna().all(axis=None)
    assert records["acceptance_rate"].notna().all()


def test_the_reference_study() -> None:
    study = load_study(REFERENCE)
    assert len(study.summary) == study.summary["combination"].nunique() == study.records["combination"].nunique()
    sums = study.records.groupby("combination")["accepted_tokens"].sum()
    assert sums.to_dict() == study.summary.set_index("combination")["accepted_tokens"].to_dict()
    assert study.config["name"] == study.manifest["study"]["name"] == "default"


def test_rates_by_depth_of_an_earlier_study_are_worked_out(tmp_path: Path) -> None:
    now = load_study(write(tmp_path)).positions
    file = tmp_path / "positions.csv"
    pd.read_csv(file, dtype=str, keep_default_na=False).drop(columns=["conditional_rate", "marginal_rate"]).to_csv(
        file, index=False
    )
    pd.testing.assert_frame_equal(load_study(tmp_path).positions, now, rtol=1e-5)
    assert now["conditional_rate"].between(0, 1).all()


def test_a_study_in_which_everything_failed(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ALWAYS:
        header = (tmp_path / f"{name}.csv").read_text().splitlines()[0]
        (tmp_path / f"{name}.csv").write_text(header + "\n")
    study = load_study(tmp_path)
    assert study.records.empty
    assert study.summary["budget"].dtype == np.int64


def test_columns_that_no_study_writes_are_left_out(tmp_path: Path) -> None:
    write(tmp_path)
    table = pd.read_csv(tmp_path / "nodes.csv", dtype=str, keep_default_na=False)
    table.assign(mine="x")[["mine", *table.columns]].to_csv(tmp_path / "nodes.csv", index=False)
    assert list(load_study(tmp_path).nodes) == list(table)


def without(column: str, path: Path) -> None:
    pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=column).to_csv(path, index=False)


def replaced(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), r"holds no study \(manifest.json is missing\); expected the folder"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json: cannot be read; expected the folder"),
        (lambda f: (f / "manifest.json").write_text("[1]"), "manifest.json: is not a study's; expected the folder"),
        (lambda f: (f / "manifest.json").write_text("{}"), "manifest.json: is not a study's; expected the folder"),
        (lambda f: (f / "config.yaml").unlink(), "config.yaml: there is no such file; expected the folder"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "config.yaml: cannot be read; expected the folder"),
        (lambda f: (f / "config.yaml").write_text("[1]"), "config.yaml: is not a study's configuration"),
        (lambda f: (f / "nodes.csv").unlink(), "nodes.csv: there is no such file; expected the folder of a finished"),
        (lambda f: (f / "records.csv").write_bytes(b""), "records.csv: cannot be read as a table: No columns"),
        (lambda f: (f / "records.csv").write_bytes(b"\xff\xfe\x00"), "records.csv: cannot be read as a table: "),
        (lambda f: without("pair", f / "summary.csv"), "summary.csv: has no column pair; expected a table of this"),
        (lambda f: without("metric", f / "comparisons.csv"), "comparisons.csv: has no column metric; "),
        (lambda f: replaced(f / "positions.csv", ",0.75", ",much"), "positions.csv: cannot be read as a table: "),
        (lambda f: replaced(f / "lengths.csv", ",kary,2,", ",kary,,"), "lengths.csv: cannot be read as a table: "),
    ],
)
def test_what_is_no_study(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    damage(write(tmp_path))
    with pytest.raises(ResultsError, match=message) as caught:
        load_study(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="none: no such folder; expected the folder of a finished study"):
        load_study(tmp_path / "none")


def test_it_is_public_and_needs_no_torch() -> None:
    code = f"""
import sys
import specdraft
assert len(specdraft.load_study({str(REFERENCE)!r}).records) > 0
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert specdraft.load_study is load_study
    assert specdraft.StudyTables is StudyTables


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rows_of_some_combinations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """However few lines are read at a time."""
    whole = read_records(write(tmp_path))
    if form == "parquet":
        whole.to_parquet(tmp_path / "records.parquet")
        (tmp_path / "records.csv").unlink()
    some = {*whole["combination"].unique()[1:]}
    monkeypatch.setattr("specdraft.results.study_tables.PIECE", 2)
    pd.testing.assert_frame_equal(read_records(tmp_path), whole)
    expected = whole[whole["combination"].isin(some)].reset_index(drop=True)
    assert 0 < len(expected) < len(whole)
    pd.testing.assert_frame_equal(read_records(tmp_path, combinations=some), expected)
    none = read_records(tmp_path, ["steps", "combination"], combinations=())
    assert none.empty and list(none.columns) == ["steps", "combination"]
