"""`specdraft reconcile` and `specdraft export` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import engine_files as files
from support.command_line import Run, one_line
from support.sides import made_side, write_side

from specdraft.commands.options import DONE, SOME_FAILED


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.txt"
    path.write_text(files.VLLM_METRICS)
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_side(made_side("mine", {"chain": 0.3, "kary": 0.4}, prompts=30), tmp_path / "mine")


def test_a_file_alone(run: Run, metrics: Path) -> None:
    said = run("reconcile", metrics)
    assert (said.code, said.err) == (DONE, "")
    for shown in ("vLLM's /metrics", "3.535", "block_efficiency     3.5349", "acceptance_length    2.5349", "12,208"):
        assert shown in said.out
    told = json.loads(run("reconcile", metrics, "--json").out)
    assert told["kind"] == "vllm-metrics" and told["study"] is None and told["answer"] == []
    assert told["counts"] == {"steps": 4816, "drafted_tokens": 33712, "accepted_tokens": 12208, "bonus_tokens": 4816,
                              "new_tokens": None}  # fmt: skip


def test_beside_a_study(run: Run, metrics: Path, study: Path) -> None:
    said = run("reconcile", metrics, "--study", study, "tree=chain")
    assert (said.code, said.err) == (DONE, "")
    assert "they differ; none of these explains it" in " ".join(said.out.split())
    told = json.loads(run("reconcile", metrics, "tree=chain", "--study", study, "--json").out)
    assert told["row"] == "pair=same tree=chain budget=4" and len(told["answer"]) == 3
    assert all(one["together"] is False for one in told["possibilities"] if one["metric"] == "block_efficiency")


def test_bad_input_is_one_line(run: Run, tmp_path: Path, metrics: Path, study: Path, small_study: Path) -> None:
    (tmp_path / "none.txt").write_text("hello\n")
    (tmp_path / "golden.yaml").write_text("specdraft: golden\n")
    cases = [
        (("reconcile", tmp_path / "missing"), "missing: cannot be read: No such file"),
        (("reconcile", tmp_path / "none.txt"), "holds no figures of speculative decoding"),
        (("reconcile", metrics, "tree=chain"), "expected --study DIR"),
        (("reconcile", metrics, "--study", tmp_path / "nothing"), "no such folder"),
        (("reconcile", metrics, "--study", study, "tree=wide"), "tree=wide: no row of"),
        (("reconcile", tmp_path / "golden.yaml"), "expected one --study DIR"),
        (
            ("reconcile", tmp_path / "golden.yaml", "--study", study, "tree=chain"),
            "a golden file names its rows itself",
        ),
        (("export", tmp_path / "nothing", "--format", "parquet"), "no such folder"),
        (("export", study, "--format", "golden"), "--format 'golden' is not known; did you mean 'golden-yaml'?"),
        (("export", small_study, "--out", tmp_path / "x.parquet"), "is named as a file; expected a folder for"),
        (("export", small_study, "--out", small_study), "is the study's own folder"),
    ]
    for arguments, message in cases:
        assert message in one_line(run(*arguments)), arguments


def test_export_and_check(run: Run, tmp_path: Path, small_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = tmp_path / "golden.yaml"
    said = run("export", small_study, "--format", "golden-yaml", "--out", golden)
    assert (said.code, said.out, said.err) == (DONE, f"{golden}\n", "")
    assert run("reconcile", golden, "--study", small_study).out == "6 of 6 rows are inside their intervals\n"
    golden.write_text(golden.read_text().replace("budget: 4", "budget: 5", 1))
    left = run("reconcile", golden, "--study", small_study)
    assert left.code == SOME_FAILED and "5 of 6 rows are inside" in left.out and "gone" in left.out
    told = json.loads(run("reconcile", golden, "--study", small_study, "--json").out)
    assert told["inside"] is False and [row["verdict"] for row in told["rows"]].count("gone") == 3
    monkeypatch.chdir(tmp_path)
    said = run("export", small_study, "--format", "vllm", "tree=chain", "budget=2")
    name = "results/small-vllm/pair-zoo-tiny-tree-chain-budget-2"
    assert said.out.splitlines() == [f"{name}.jsonl", f"{name}.synthetic.json"]
    again = run("reconcile", f"{name}.jsonl", "--study", small_study, "tree=chain", "budget=2", "--json")
    assert all("the same within the interval" in line for line in json.loads(again.out)["answer"])


def test_nothing_is_written_where_something_lacks(run: Run, tmp_path: Path, study: Path) -> None:
    (study / "config.yaml").write_text("name: mine\n")
    said = run("export", study, "--format", "vllm", "--out", tmp_path / "out")
    assert "Traceback" not in said.err and said.code == 2 and not (tmp_path / "out").exists()
