"""`specdraft fit predictor`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.command_line import Run

from specdraft.prediction.predictor import load_predictor
from specdraft.results.study_tables import load_study
from specdraft.study.fit_predictor import default_file, learn

SMALL = ("pair=zoo-tiny", "budget=6", "max_new_tokens=10")


@pytest.fixture(autouse=True)
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))


def swept(run: Run, out: Path, prompts: int) -> Path:
    """A study of the texts that are fitted to."""
    asked = ["pair=zoo-tiny", "max_new_tokens=10", f"prompts.limit={prompts}", "tree=chain", "budget=1"]
    assert run("sweep", *asked, "cost.measure=off", "report=false", "--out", out).code == 0
    return out


def test_it_writes_a_predictor_its_scores_and_its_rows(run: Run, tmp_path: Path) -> None:
    out, table, study = tmp_path / "one.safetensors", tmp_path / "rows.csv", swept(run, tmp_path / "study", 8)
    said = run(
        "fit", "predictor", *SMALL, "prompts.limit=8", "--model", "logistic", "--calibration", "platt",
        "--features", "raw,place,loop",
        "--out", str(out), "--rows", str(table), "--ablation", "--study", str(study), "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    told = json.loads(said.out)
    # 27 weights and an intercept, a slope and an intercept, of 8 bytes each
    assert told["memory"]["megabytes"] == 240 / 1e6
    weights = sum(json.loads((study / "manifest.json").read_text())["models"]["zoo-tiny"][role]["parameters"] * 4
                  for role in ("target", "draft"))  # fmt: skip
    assert told["memory"]["percent"] == pytest.approx(100 * 240 / weights)
    scores = {(s["model"], s["calibration"], s["what"]): s["scores"] for s in told["scores"]}
    assert len(scores) == 5 * 5 * 2
    rows = pd.read_csv(table)
    assert (len(rows), int(rows.reached.sum())) == (told["rows"], told["reached"])
    # anyone can work the error out again: bins of a twentieth, means within them
    for column, calibration, model in (("raw", "none", "raw"), ("conditional", "platt", "logistic")):
        reached = rows[rows.reached == 1]
        which = np.minimum((reached[column] * 20).astype(int), 19)
        gap = (reached[column] - reached.accepted).groupby(which).sum().abs().sum() / len(reached)
        assert scores[model, calibration, "conditional"]["ece"]["value"] == pytest.approx(gap, abs=2e-3)
        brier = ((rows[f"{column.replace('conditional', 'survival')}"] - rows.accepted) ** 2).mean()
        if model == "logistic":
            assert scores[model, calibration, "survival"]["brier"]["value"] == pytest.approx(brier, abs=1e-6)
    assert [step["added"] for step in told["ablation"]] == [
        "raw",
        "temperature",
        "fitted",
        "place",
        "spread",
        "parent",
        "loop",
    ]
    kept = load_study(study).ablation
    assert kept is not None
    assert kept[["pair", "temperature", "max_new_tokens", "prompts"]].drop_duplicates().values.tolist() == [
        ["zoo-tiny", 0, 10, 8]
    ]
    for row, step in zip(kept.to_dict("records"), told["ablation"], strict=True):
        assert (row["added"], row["says"]) == (step["added"], step["says"])
        assert row["log_loss"] == pytest.approx(step["scores"]["log_loss"]["value"], rel=1e-5)
        gained = step["gained"].get("auroc", {}).get("lo", np.nan)
        assert row["gained_auroc_lo"] == pytest.approx(gained, rel=1e-4, nan_ok=True)
    about = load_predictor(out).about
    assert (about.pair, about.model, about.calibration, about.prompts) == ("zoo-tiny", "logistic", "platt", 8)
    assert about.groups == ("raw", "place", "loop")
    assert about.sampling.temperature == 0
    recorded: list[str] = []
    learnt = learn([*SMALL, "prompts.limit=8"], recorded=recorded.append)
    assert recorded == []
    assert len(learnt.rows.prompt) == told["rows"]
    assert default_file(learnt.combination) == tmp_path / "traces" / "predictor-zoo-tiny-model-greedy.safetensors"
    others = ["prompts.limit=4", "--ablation", "--study", str(study)]
    refused(run, others, f"--study {study}: it has other prompts than these 4; expected the same ones")
    others.append("max_new_tokens=11")
    refused(
        run, others, f"--study {study}: expected a study that has rows of pair=zoo-tiny drafter=model temperature=0"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prompts.limit=3"], "prompts: 3; a predictor is fitted on one half of them"),
        (["prompts.limit=4", "max_new_tokens=1"], "the outcomes of 0 draft nodes are all equal (no draft node was"),
        (["tree=chain"], "tree=chain: a predictor learns from best-first trees; leave it out"),
        (["drafter=ngram"], "tree=best_first chooses nodes by their probability, and drafter=ngram"),
        (["--model", "forest"], "--model 'forest' is not known"),
        (["--calibration", "plat"], "--calibration 'plat' is not known; did you mean 'platt'?"),
        (["--out", "one.pt"], "--out one.pt: expected a file that ends in .safetensors"),
        (["--features", "raw,lop"], "--features 'lop' is not known; did you mean 'loop'?"),
        (["--features", "raw", "--model", "isotonic"], "--features has no effect: --model isotonic reads"),
        (["--alignment", "one.safetensors"], "--alignment FILE belongs to --ablation"),
        (["--study", "nowhere"], "--study DIR belongs to --ablation"),
        (["--study", "nowhere", "--ablation"], "nowhere: no such folder; expected the folder of a finished study"),
        (["engine=live"], "engine=live has no effect in fit predictor"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: list[str], says: str) -> None:
    refused(run, arguments, says)


def refused(run: Run, arguments: list[str], says: str) -> None:
    said = run("fit", "predictor", *SMALL, *arguments)
    line = next(line for line in said.err.splitlines() if line.startswith("error"))
    assert (said.code, said.out) == (2, "")
    assert line.startswith(f"error: {says}"), line
