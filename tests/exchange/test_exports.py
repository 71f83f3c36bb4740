"""A study in other forms, and back again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from specdraft.errors import ConfigError
from specdraft.exchange.exports import Exported, export, registry
from specdraft.exchange.formats import read
from specdraft.exchange.golden import GONE, INSIDE, LEFT, golden_text, held_against, is_golden
from specdraft.exchange.source import ForeignFile, read_foreign
from specdraft.results.study_tables import StudyTables, load_study

CHAIN, KARY = "pair-zoo-tiny-tree-chain-budget-4", "pair-zoo-tiny-tree-kary-budget-4"


@pytest.fixture(scope="module")
def study(small_study: Path) -> StudyTables:
    return load_study(small_study)


def made(study: StudyTables, kind: str, *rows: str) -> Exported:
    return export(registry()[kind](), study, rows)


def opened(tmp_path: Path, content: str | bytes) -> ForeignFile:
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_foreign(path)


def lines(content: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize("kind", ["spec-bench", "vllm"])
def test_a_round_trip_gives_the_same_counts(tmp_path: Path, study: StudyTables, kind: str) -> None:
    files = made(study, kind).files
    of = study.summary.set_index(["tree", "budget"])
    for tree, budget in of.index:
        found = read(opened(tmp_path, files[f"pair-zoo-tiny-tree-{tree}-budget-{budget}.jsonl"]))
        row = of.loc[(tree, budget)]
        assert found.counts._asdict() == {name: row[name] for name in found.counts._fields}
        for metric, value in found.ratios.items():
            assert np.isclose(value, row[metric], rtol=1e-5), metric


def test_answers_as_the_script_of_spec_bench_reads_them(study: StudyTables) -> None:
    """Its mean accepted tokens (evaluation/speed.py) are the mean over all listed steps."""
    answers = lines(made(study, "spec-bench").files[f"{KARY}.jsonl"])
    listed = [length for answer in answers for length in answer["choices"][0]["accept_lengths"]]
    row = study.summary.query("tree == 'kary' and budget == 4").iloc[0]
    assert np.isclose(np.mean(listed), row["block_efficiency"], rtol=1e-5) and len(listed) == row["steps"]
    assert {answer["category"] for answer in answers} == set(study.by_category["category"])
    assert all(sum(answer["choices"][0]["new_tokens"]) == 24 for answer in answers)
    assert "wall_time" not in answers[0]["choices"][0] and isinstance(answers[0]["question_id"], int)


def test_a_live_study_has_times(study: StudyTables) -> None:
    assert study.records is not None
    records = study.records.assign(wall_s=0.5)
    live = StudyTables(**(vars(study) | {"records": records, "steps": None}))
    exported = made(live, "spec-bench", "tree=chain", "budget=4")
    (answer, *_) = lines(exported.files[f"{CHAIN}.jsonl"])
    assert answer["choices"][0]["wall_time"] == [0.5] and "accept_lengths" not in answer["choices"][0]
    assert exported.notes == ["no steps were recorded (output.steps=true): accept_lengths are left out"]
    assert list(exported.files) == [f"{CHAIN}.jsonl"]


def test_turns_and_repeats_of_a_question_stand_together(study: StudyTables) -> None:
    assert study.records is not None and study.steps is not None

    def with_more(table: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([table, table.assign(turn=2), table.assign(repeat=1), table.assign(turn=2, repeat=1)])

    more = {"records": with_more(study.records), "steps": with_more(study.steps)}
    twice = StudyTables(**(vars(study) | more))
    (before, *_), (answer, *_) = (lines(made(one, "spec-bench").files[f"{KARY}.jsonl"]) for one in (study, twice))
    once, first = before["choices"][0], answer["choices"][0]
    assert len(answer["choices"]) == 2 and first["decoding_steps"] == 2 * once["decoding_steps"]
    assert first["accept_lengths"] == 2 * once["accept_lengths"]
    records = lines(made(twice, "vllm").files[f"{KARY}.jsonl"])
    assert len(records) == 4 * 8 and {(record["turn"], record["repeat"]) for record in records} == {
        (1, 0), (2, 0), (1, 1), (2, 1)
    }  # fmt: skip


def test_synthetic_rates_are_the_measured_ones(study: StudyTables) -> None:
    told = json.loads(made(study, "vllm").files[f"{CHAIN}.synthetic.json"])
    assert study.steps is not None
    combination = study.summary.query("tree == 'chain' and budget == 4")["combination"].item()
    accepted = study.steps[study.steps["combination"] == combination]["accepted_tokens"].to_numpy()
    rates = [float((accepted >= depth).mean()) for depth in range(1, 5)]
    assert np.allclose(told["synthetic_acceptance_rates"], rates, atol=1e-6)
    assert told["num_speculative_tokens"] == 4 and told["rejection_sample_method"] == "synthetic"


def test_every_table_as_parquet(tmp_path: Path, study: StudyTables) -> None:
    files = made(study, "parquet", "tree=kary").files
    assert {"records.parquet", "summary.parquet", "steps.parquet", "positions.parquet"} <= set(files)
    (tmp_path / "a.parquet").write_bytes(bytes(files["summary.parquet"]))  # type: ignore[arg-type]
    back = pd.read_parquet(tmp_path / "a.parquet")
    expected = study.summary[study.summary["tree"] == "kary"].reset_index(drop=True)
    pd.testing.assert_frame_equal(back, expected, check_dtype=False)


def test_a_golden_file_holds_what_it_was_made_of(tmp_path: Path, study: StudyTables) -> None:
    file = opened(tmp_path, made(study, "golden-yaml").files["golden.yaml"])
    assert is_golden(file)
    held = held_against(file, study.summary)
    assert len(held) == 3 * len(study.summary) and {one.verdict for one in held} == {INSIDE}


def test_a_row_that_left_its_interval(tmp_path: Path, study: StudyTables) -> None:
    file = opened(tmp_path, golden_text(study.summary))
    later = study.summary.copy()
    chain = (later["tree"] == "chain") & (later["budget"] == 2)
    later.loc[chain, "block_efficiency"] = later.loc[chain, "block_efficiency_hi"] + 0.01
    later = later[later["tree"] != "hindsight"]
    verdicts = {(one.keys["tree"], one.keys["budget"], one.metric): one.verdict for one in held_against(file, later)}
    left = {key for key, verdict in verdicts.items() if verdict == LEFT}
    assert left == {("chain", 2, "block_efficiency")}
    assert {key[0] for key, verdict in verdicts.items() if verdict == GONE} == {"hindsight"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("specdraft: golden\n", "has no list of rows"),
        ("specdraft: golden\nrows: [1]\n", "has no list of rows"),
        ("specdraft: golden\nrows: [{keys: {}}]\n", "common is no mapping"),
        ("specdraft: golden\ncommon: {}\nrows: [{keys: {tree: chain}}]\n", "row 1 has no keys, or none of"),
        ("specdraft: golden\ncommon: {}\nrows: [{keys: {shape: x}, acceptance_rate: 1}]\n", "'shape' is no key"),
        (
            "specdraft: golden\ncommon: {}\nrows: [{keys: {tree: chain}, acceptance_rate: 1}]\n",
            "has no value, lo and hi",
        ),
        ("specdraft: golden\nrows: [\n", "is no YAML"),
    ],
)
def test_a_golden_file_that_is_broken(tmp_path: Path, study: StudyTables, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        held_against(opened(tmp_path, text), study.summary)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_a_form_needs(study: StudyTables) -> None:
    assert study.records is not None and study.steps is not None

    def without(**tables: pd.DataFrame | None) -> StudyTables:
        return StudyTables(**(vars(study) | tables))

    fractions = without(records=study.records.assign(steps=study.records["steps"] + 0.5))
    cases = [
        (without(steps=None), "vllm", "has no steps.csv, and vllm lists every step; run the sweep again with"),
        (without(steps=study.steps.iloc[:0]), "vllm", "has no steps of the chosen rows"),
        (without(records=None), "spec-bench", "has no records.csv"),
        (fractions, "spec-bench", "have no whole steps"),
    ]
    for lacking, kind, message in cases:
        with pytest.raises(ConfigError, match=message):
            made(lacking, kind)
