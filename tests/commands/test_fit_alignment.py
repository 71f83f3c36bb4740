"""`specdraft fit alignment`: what it writes drafts; what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from support.command_line import Run
from support.tiny_models import PairFolders

from specdraft.commands.options import DONE, USAGE


@pytest.fixture(autouse=True)
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return tmp_path / "traces"


@pytest.fixture
def pair(tiny_pair_folders: PairFolders) -> list[str]:
    return ["pair.name=tiny", *(f"pair.{role}.path={path}" for role, path in tiny_pair_folders._asdict().items())]


def test_an_alignment_on_traces_drafts_in_a_sweep(run: Run, pair: list[str], tmp_path: Path) -> None:
    out, prompts = tmp_path / "tiny.safetensors", ["prompts.limit=3", "max_new_tokens=4"]
    said = run(
        "fit", "alignment", *pair, *prompts, "fit.folds=2", "fit.ridge=0.01", "fit.rank=3", "--out", out, "--json"
    )
    assert said.code == DONE, said.err
    facts = json.loads(said.out)
    assert facts["ridge"] == 0.01 and facts["rank"] == 3 and facts["file"] == str(out)
    assert 0 < facts["held_out_tokens"] < facts["tokens"]
    assert facts["heads"].keys() == {"aligned", "own"}
    assert facts["memory"]["megabytes"] == pytest.approx(4 * (32 * 32 + 32) / 1e6)
    with safe_open(out, framework="numpy") as content:
        metadata = content.metadata()
        assert content.get_slice("weight").get_shape() == [32, 32]
    assert metadata["kind"] == "alignment" and metadata["pair"] == "tiny" and metadata["layer"] == "-1"
    assert (metadata["target"], metadata["draft"]) == (facts["target"], facts["draft"])
    assert json.loads(metadata["r2"]) == facts["r2"] < 1 and json.loads(metadata["tokens"]) == facts["tokens"]
    sweep = [*pair, *prompts, "drafter=model,aligned", f"pair.heads.aligned={out}", "tree=chain", "budget=2"]
    done = run("sweep", *sweep, "cost.measure=off", "report=false", "--out", tmp_path / "study", "--json")
    assert done.code == DONE, done.err
    rows = json.loads(done.out)["summary"]
    assert {row["drafter"] for row in rows} == {"model", "aligned"}
    manifest = (tmp_path / "study" / "manifest.json").read_text()
    assert "tiny.safetensors" in manifest
    assert str(tmp_path) not in manifest


def test_a_refined_alignment_on_a_text(run: Run, pair: list[str], tmp_path: Path, traces: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("The harbour lay still. " * 40, encoding="utf-8")
    keys = [f"fit.text={text}", "fit.window=64", "fit.tokens=700", "fit.refine=true", "fit.steps=4"]
    said = run("fit", "alignment", *pair, *keys)
    assert said.code == DONE, said.err
    assert "words.txt: 712 tokens" in said.err  # 700 of the text, and a mark in front of each of 12 windows
    shown = " ".join(said.out.replace("│", " ").split())
    assert "% of both models' weights" in shown and "refined 4 steps, KL" in shown
    (written,) = traces.joinpath("fitted").iterdir()
    with safe_open(written, framework="numpy") as content:
        assert json.loads(content.metadata()["refined"])["steps"] == 4
        assert content.metadata()["source"] == "words.txt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fit.ridge=0", "fit.window=16", "fit.tokens=40", "fit.folds=2"],
            "fit.ridge=0: the 30 draft states span only",
        ),
        (["fit.ridge=-1"], "fit.ridge=-1.0 is out of range; expected 0 or more"),
        (["fit.rigde=1"], "fit.rigde is not a key; did you mean 'ridge'?"),
        (["fit.rank=1,2"], "fit.rank=1,2: one value at a time"),
        (["fit=1"], "fit=1: expected fit.KEY=VALUE"),
        (["fit.tokens=100", "fit.window=64"], "2 windows of 64 tokens are too few to fit an alignment and to score it"),
        (["fit.refine=true", "fit.rank=2"], "fit.refine does not keep fit.rank=2; leave one of them out"),
        (["budget=4"], "budget=4 has no effect in fit alignment"),
        (["drafter=ngram"], "drafter=ngram has no effect in fit alignment"),
        (["prompts.limit=6"], "prompts.limit=6 has no effect in fit alignment: the text is that of fit.text"),
        (["--out", "here.pt"], "--out here.pt: expected a file that ends in .safetensors"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_meant(arguments: list[str], message: str, run: Run, pair: list[str], tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("The harbour lay still. " * 40, encoding="utf-8")
    said = run("fit", "alignment", *pair, f"fit.text={text}", *arguments)
    assert said.code == USAGE and message in said.err, said.err
    assert not said.out and "Traceback" not in said.err


def test_a_text_that_cannot_be_read(run: Run, pair: list[str], tmp_path: Path) -> None:
    (binary := tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    for named, reason in ((tmp_path / "none.txt", "No such file"), (binary, "it is no UTF-8 text")):
        said = run("fit", "alignment", *pair, f"fit.text={named}")
        assert said.code == USAGE and reason in said.err and "expected a file of plain text" in said.err


def test_too_few_prompts(run: Run, pair: list[str]) -> None:
    said = run("fit", "alignment", *pair, "prompts.limit=3", "max_new_tokens=2")
    assert said.code == USAGE
    assert "3 prompts are too few to fit an alignment and to score it: expected 6 or more (fit.folds + 1)" in said.err
