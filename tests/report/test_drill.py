"""From a summary to a prompt's steps: what is shown is what the study measured, or words say why nothing is."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.made_studies import write_study

from specdraft.report import page, replays
from specdraft.report.document import compose
from specdraft.report.drill import Drill, read_prompt_rows
from specdraft.report.findings import findings_of
from specdraft.report.page import html_page, packed
from specdraft.report.replays import drills
from specdraft.report.study_files import read_study
from specdraft.report.words import plain
from specdraft.report.writing import write_report
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study

ASKED = ["name=drilled", "pair=zoo-tiny", "tree=kary,sequoia,best_first-calibrated", "budget=4", "prompts.limit=3",
         "max_new_tokens=10", "cost.measure=off", "certify=false"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drilled") / "study"
    run_study(plan_study(ASKED), out)
    return out


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "study"
    copy.mkdir()
    for file in folder.glob("*.*"):
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def of(folder: Path, trees: tuple[str, ...] = ()) -> Drill:
    """The drill of a study; with `trees` of no others."""
    study = read_study(folder)
    if trees:
        study.summary = study.summary[study.summary["tree"].isin(trees)]
    (one,) = drills(findings_of(study))
    return one


def data_of(steps: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', steps, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize("tree", ["kary", "best_first-calibrated"])
def test_pages_show_the_steps_that_were_measured(folder: Path, tree: str) -> None:
    one = of(folder, (tree,))
    records = pd.read_csv(folder / "records.csv", dtype={"prompt_id": str})
    mine = records[records["combination"] == one.combination].set_index("prompt_id")
    assert one.note == () and set(one.pages) == {row.prompt_id for row in one.picked} and tree in plain(one.summary)
    assert sum(len(category.prompts) for category in one.categories) == len(mine) == 3
    for prompt, steps in one.pages.items():
        (lane,) = data_of(steps)["lanes"]
        taken = lane["steps"]
        counts = (len(taken), sum(len(step["accepted"]) for step in taken))
        assert counts == (mine.loc[prompt, "steps"], mine.loc[prompt, "accepted_tokens"])
    best, worst = mine["block_efficiency"].idxmax(), mine["block_efficiency"].idxmin()
    assert {best, worst} <= set(one.pages)


def test_a_fitted_leader_gives_way_and_words_say_so(folder: Path) -> None:
    one = of(folder, ("sequoia",))
    assert not one.pages and "The steps of sequoia are not shown: tree=sequoia is fitted" in plain(one.note)
    study = read_study(folder)
    study.summary.loc[study.summary["tree"] == "sequoia", "block_efficiency"] = 9.0
    (instead,) = drills(findings_of(study))
    assert instead.pages and "In its place: " in plain(instead.note)


def test_steps_of_another_study_are_not_shown(copied: Path) -> None:
    records = pd.read_csv(copied / "records.csv")
    records["steps"] += 1
    records.to_csv(copied / "records.csv", index=False)
    one = of(copied, ("kary",))
    assert not one.pages and plain(one.note).endswith("models and traces here take other steps than the study did.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "config.yaml is missing"),
        ("pair: {name: zoo-tiny, target: {path: gone}, draft: {path: gone}}\ntree: {kind: kary}\n", "gone"),
        ("nonsense: 1\n", "nonsense"),
        ("- 1\n", "not a configuration"),
    ],
)
def test_what_is_not_here_is_said(copied: Path, text: str | None, words: str) -> None:
    (copied / "config.yaml").unlink()
    if text is not None:
        (copied / "config.yaml").write_text(text)
    one = of(copied)
    assert not one.pages and plain(one.note).startswith("Steps are not shown here: ") and words in plain(one.note)


def test_large_models_are_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MOST_BYTES", 0)
    one = of(folder, ("kary",))
    assert one.pages
    for steps in one.pages.values():
        (lane,) = data_of(steps)["lanes"]
        assert {node["target_prob"] for step in lane["steps"] for node in step["nodes"]} == {None}


def test_planned_combinations_need_no_configuration(copied: Path) -> None:
    (copied / "config.yaml").unlink()
    study = read_study(copied)
    (one,) = drills(findings_of(study), plan_study(ASKED).combinations)
    assert one.pages


def test_the_page_holds_them_packed(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(page, "vega_bundle", lambda: "")
    document = compose(read_study(folder), drilled=True)
    text = html_page(document)
    found = re.search(r'<script type="application/json" id="steps">(.*?)</script>', text)
    assert found
    kept = {name: gzip.decompress(b64decode(steps)).decode() for name, steps in json.loads(found[1]).items()}
    (one,) = document.drills
    assert kept == {f"{one.combination}/{name}": steps for name, steps in one.pages.items()}
    assert packed(text) == packed(text) and len(packed(text)) < len(text) / 2
    made = write_study(tmp_path / "made")
    study = read_study(made)
    assert read_prompt_rows(study, study.summary) is None
    assert "Prompts are not listed" in html_page(compose(study, drilled=True))


def test_steps_are_left_out_on_request(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(page, "vega_bundle", lambda: "")
    for steps, there in ((False, False), (True, True)):
        write_report(folder, tmp_path / "report.html", ("html",), steps=steps)
        assert ('data-steps="' in (tmp_path / "report.html").read_text(encoding="utf-8")) == there
