"""Prompts may be added to a study: old rows stay, trees that were fitted to the old prompts do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.tiny_models import PairFolders
from support.written import rows_in

from specdraft.errors import ResultsError
from specdraft.prompts import Prompt
from specdraft.results.metrics import COUNTS
from specdraft.study.engines import replay
from specdraft.study.folder import open_study, rows_there
from specdraft.study.plan import plan_study
from specdraft.study.progress import Progress
from specdraft.study.prompt_notes import notes_on_rows
from specdraft.study.run import run_study

OLD = [("a", "story", "Once upon a time"), ("b", "story", "It was late"), ("c", "code", "def f(x):")]
NEW = [("d", "code", "import os, re"), ("e", "story", "The old house")]
TREES = "tree=chain,sequoia,measured"  # hindsight stands beside them


@pytest.fixture
def base(tmp_path: Path, tiny_pair_folders: PairFolders) -> Iterator[list[str]]:
    """The tiny pair on the old prompts, replayed."""
    write(tmp_path, OLD)
    models = [f"pair.{role}.path={folder}" for role, folder in zip(("target", "draft"), tiny_pair_folders, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
        patch.setattr("specdraft.study.engines.replay.pair_costs", costs)
        yield [*models, f"prompts.path={tmp_path / 'p.jsonl'}", "max_new_tokens=12", "budget=4"]


def costs(*given: Any) -> Any:
    from specdraft.bench.curve import CostCurve

    return CostCurve([1, 2, 4], [1e-3] * 3, [5e-3] * 3, 5e-3, 1e-3, 5e-4, 2e-2, 1e-2, 1, "made up")


def write(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    lines = [json.dumps({"question_id": i, "category": c, "prompt": p}) for i, c, p in rows]
    (folder / "p.jsonl").write_text("\n".join(lines))


def counts(out: Path) -> list[tuple[Any, ...]]:
    records = pd.read_csv(out / "records.csv", keep_default_na=False)
    return sorted(map(tuple, records[["tree", "combination", "prompt_id", *COUNTS]].to_numpy().tolist()))


def manifest(out: Path) -> Any:
    return json.loads((out / "manifest.json").read_text())


class Stop(Progress):
    """Ctrl-C after so many rows."""

    def __init__(self, after: int) -> None:
        self._left = after

    def advance(self, rows: int) -> None:
        self._left -= rows
        if self._left <= 0:
            raise KeyboardInterrupt


def test_rows_of_old_prompts_stay_and_fitted_trees_are_fitted_anew(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST_ROWS", 1)  # a part for each combination, so that there is something to stop
    out, whole = tmp_path / "out", tmp_path / "whole"
    run_study(plan_study([*base, TREES]), out)
    before = counts(out)
    write(tmp_path, [*NEW, *OLD])
    grown = plan_study([*base, TREES])
    reused = {c.keys["tree"]: rows_there(grown, out)[c.identifier] for c in grown.combinations}
    assert reused == {"chain": len(OLD), "sequoia": 0, "measured": 0, "hindsight": 0}
    with pytest.raises(KeyboardInterrupt):
        run_study(grown, out, progress=Stop(after=len(NEW) + 1))
    run_study(grown, whole)
    assert set(counts(out)) < set(counts(whole))  # no row of a tree that was fitted to the old prompts
    run_study(grown, out)
    assert counts(out) == counts(whole)
    assert {row for row in before if row[0] == "chain"} < set(counts(out))
    assert manifest(out)["study"] == grown.identity
    fitted = {c.identifier for c in grown.combinations if c.shape.fitted}
    rows = [row for row in rows_in(out) if row.combination in fitted]
    assert len(rows) == 3 * len(OLD) + 3 * len(OLD + NEW)
    assert len({row.weights for row in rows}) == 2
    assert len(rows_in(out)) == len(rows) + len(OLD + NEW)  # nothing was done twice


def test_a_combination_that_did_not_grow_along_is_named() -> None:
    prompts = [Prompt(prompt_id, "all", "text") for prompt_id in "abc"]
    (note,) = notes_on_rows({"x": 3, "y": 2}, prompts)
    assert (note.kind, note.prompts) == ("missing", 1)
    assert note.text == "1 of 2 combinations have rows of fewer prompts than these 3 (2 at least): run them again"
    assert notes_on_rows({"x": 3}, prompts) == notes_on_rows({}, prompts) == []


@pytest.mark.parametrize(
    ("rows", "lost"), [(OLD[1:] + NEW, "'a'"), ([*OLD[:2], ("c", "code", "def g(x):"), *NEW], "'c'")]
)
def test_prompts_that_are_gone_or_changed(base: list[str], tmp_path: Path, rows: Any, lost: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    open_study(plan_study([*base, "tree=chain"]), out, fresh=False)
    write(tmp_path, rows)
    with pytest.raises(ResultsError, match=rf"\(prompts differ\): its prompt {lost} is not among these as it was"):
        open_study(plan_study([*base, "tree=chain"]), out, fresh=False)
    write(tmp_path, NEW + OLD)
    open_study(plan_study([*base, "tree=chain"]), out, fresh=False)
    with pytest.raises(ResultsError, match=r"\(seed differ\); choose"):
        open_study(plan_study([*base, "tree=chain", "seed=1"]), out, fresh=False)
