"""Every bundled experiment runs, on a tiny pair and few prompts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from support.tiny_models import PairFolders

from specdraft.study import run
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study

pytestmark = pytest.mark.usefixtures("few_rounds")

EXPERIMENTS = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_runs(name: str, tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    monkeypatch.setattr(run, "prove_rules", lambda *given: [])  # tests/losslessness goes through the rules
    pair = [
        f"pair.target.path={tiny_pair_folders.target}",
        f"pair.draft.path={tiny_pair_folders.draft}",
        "pair.name=tiny",
    ]
    small = ["prompts.limit=5", "max_new_tokens=3", "budget=2,4"]
    small += ["drafter=model,suffix"] if name.startswith("trees_vs_chains") else []  # `drafters` has all kinds
    outcome = run_study(plan_study([f"experiment={name}", *pair, *small]), tmp_path / "out")
    assert outcome.failures == []
    records = pd.read_csv(tmp_path / "out" / "records.csv")
    assert set(records["pair"]) == {"tiny"}
    assert (records["new_tokens"] <= 3).all()
