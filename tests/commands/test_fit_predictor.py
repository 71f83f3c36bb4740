"""`specdraft fit predictor`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.command_line import Run

from specdraft.prediction.predictor import load_predictor
from specdraft.study.fit_predictor import default_file, learn

SMALL = ("pair=zoo-tiny", "budget=6", "max_new_tokens=10")


@pytest.fixture(autouse=True)
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))


def test_it_writes_a_predictor_its_scores_and_its_rows(run: Run, tmp_path: Path) -> None:
    out, table = tmp_path / "one.safetensors", tmp_path / "rows.csv"
    said = run(
        "fit", "predictor", *SMALL, "prompts.limit=8", "--model", "logistic", "--calibration", "platt",
        "--features", "raw,place,loop",
        "--out", str(out), "--rows", str(table), "--ablation", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    told = json.loads(said.out)
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
    about = load_predictor(out).about
    assert (about.pair, about.model, about.calibration, about.prompts) == ("zoo-tiny", "logistic", "platt", 8)
    assert about.groups == ("raw", "place", "loop")
    assert about.sampling.temperature == 0
    recorded: list[str] = []
    learnt = learn([*SMALL, "prompts.limit=8"], recorded=recorded.append)
    assert recorded == []
    assert len(learnt.rows.prompt) == told["rows"]
    assert default_file(learnt.combination) == tmp_path / "traces" / "predictor-zoo-tiny-model-greedy.safetensors"


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
        (["engine=live"], "engine=live has no effect in fit predictor"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: list[str], says: str) -> None:
    said = run("fit", "predictor", *SMALL, *arguments)
    line = next(line for line in said.err.splitlines() if line.startswith("error"))
    assert (said.code, said.out) == (2, "")
    assert line.startswith(f"error: {says}"), line
