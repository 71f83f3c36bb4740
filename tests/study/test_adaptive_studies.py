"""Adaptive trees and texts with a limit of time in studies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.asked import TALES_AND_CODE, prompts_of, tiny_pair_of
from support.made_studies import write_study
from support.tiny_models import PairFolders
from support.written import rows_in

from specdraft import SpeculativeDecoder, load_study
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.report.findings import findings_of
from specdraft.report.study_files import read_study
from specdraft.report.table import value_cell
from specdraft.report.text_tables import quality_table, sizes_table
from specdraft.results.metrics import COUNTS
from specdraft.results.study_tables import read_records, read_table
from specdraft.study.plan import plan_study
from specdraft.study.run import Outcome, run_study
from specdraft.traces.store import TraceStore


@pytest.fixture
def base(tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return [*tiny_pair_of(tiny_pair_folders), *prompts_of(tmp_path), "max_new_tokens=8", "report=false"]


def study(base: list[str], out: Path, *overrides: str) -> Outcome:
    outcome = run_study(plan_study([*base, *overrides]), out)
    assert outcome.failures == []
    return outcome


def rows_of(outcome: Outcome) -> pd.DataFrame:
    """Without those of the reference."""
    records = read_records(outcome.out).astype({"tree": str})
    return records[records["tree"].str.startswith("adaptive")]


def test_replay_is_live_at_every_budget(base: list[str], tmp_path: Path) -> None:
    """One recording serves both budgets; a margin of its own is recorded anew, and best-first trees are others."""
    grid = ["tree=adaptive", "tree.margin=1.0,4.0", "budget=3,10", "cost.measure=off", "output.steps=true"]
    replayed = study(base, tmp_path / "replay", *grid)
    live = study(base, tmp_path / "live", *grid[:3], "output.steps=true", "engine=live")
    keys = ["tree", "budget", "prompt_id"]
    both = [rows_of(one).sort_values(keys)[[*keys, *COUNTS]] for one in (replayed, live)]
    pd.testing.assert_frame_equal(*(table.reset_index(drop=True) for table in both))
    assert set(both[0]["tree"]) == {"adaptive-m1.0", "adaptive-m4.0"}
    grown = [trace.about for trace in TraceStore(tmp_path / "traces").list() if trace.about["kind"] == "expansion"]
    assert sorted((about["budget"], about["margin"]) for about in grown) == [(10, 1.0)] * 4 + [(10, 4.0)] * 4
    assert read_table(replayed.out / "steps.csv")["drafted_tokens"].nunique() > 2


def test_a_limit_of_time_in_a_step_is_for_live_decoding(base: list[str]) -> None:
    (combination,) = plan_study([*base, "tree=adaptive", "budget=3", "tree.max_step_s=0.5"]).combinations
    assert combination.engine == "live"
    with pytest.raises(ConfigError) as error:
        plan_study([*base, "tree=adaptive", "tree.max_step_s=0.5", "engine=replay"])
    assert "tree=adaptive with tree.max_step_s depends on how long drafting takes" in str(error.value)


def test_texts_that_their_time_ends(base: list[str], tmp_path: Path) -> None:
    outcome = study(base, tmp_path / "out", "tree=kary", "budget=3", "engine=live", "max_time_s=1e-9")
    assert [(row.timed_out, row.tally.new_tokens, row.tally.steps) for row in rows_in(outcome.out)] == [
        (True, 1, 0)
    ] * 4
    summary = outcome.tables["summary.csv"].iloc[0]
    assert summary["new_tokens"] == 4
    notes = json.loads((outcome.out / "manifest.json").read_text())["prompt_notes"]
    assert [note["text"] for note in notes] == ["4 of 4 live texts ended early: their time (max_time_s) was over"]
    (unlimited,) = plan_study([*base, "tree=kary", "budget=3", "engine=live"]).combinations
    assert unlimited.identifier != summary["combination"]


def test_a_time_without_effect(base: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^max_time_s=5\.0 has no effect: nothing is decoded live"):
        plan_study([*base, "tree=kary", "max_time_s=5"])


def test_texts_are_as_probable_as_they_are(base: list[str], tiny_pair: Pair, tmp_path: Path) -> None:
    """Lossless texts have plain decoding's likelihood, whatever the tree; those of a rule that takes too much lose."""
    lossless = study(base, tmp_path / "equal", "tree=kary,adaptive", "budget=6", "engine=live")
    summary = lossless.tables["summary.csv"]
    assert summary["nll_over_plain"].tolist() == [0, 0]
    assert summary["perplexity"].tolist() == pytest.approx(np.exp(summary["nll"]).tolist())
    pair, total, count = tiny_pair, 0.0, 0
    for prompt in TALES_AND_CODE:
        ids = pair.encode(prompt["prompt"])
        tokens = SpeculativeDecoder(pair, "kary", 6, max_new_tokens=8).generate(ids).token_ids
        for place, token in enumerate(tokens):
            total -= float(torch.log_softmax(pair.target.after([*ids, *tokens[:place]]).double(), -1)[token])
        count += len(tokens)
    assert summary["nll"].tolist() == pytest.approx([total / count] * 2, rel=1e-5)
    loose = ["acceptance=typical", "acceptance.delta=1e-9", "sampling=sample", "tree=paths", "tree.paths=[[200]]"]
    lossy = study(base, tmp_path / "lossy", *loose)
    row = lossy.tables["summary.csv"].iloc[0]
    assert row["nll_over_plain"] == pytest.approx(row["nll"] - row["plain_nll"])
    assert row["nll_over_plain"] > 0.05
    read = load_study(lossy.out)
    assert read.summary["nll_over_plain"][0] == pytest.approx(row["nll_over_plain"], rel=1e-4)
    page = "\n".join(" ".join(cells) for cells in quality_rows(lossy.out))
    assert "typical" in page and value_cell(row["plain_nll"]) in page


def test_the_sizes_of_trees_are_in_the_report(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "made", trees=("adaptive", "chain"), budgets=(9,), live=True)
    (adaptive, chain), sizes = pd.read_csv(folder / "summary.csv", dtype=str)["combination"], [1, 2, 2, 3, 9]
    counts = [(adaptive, size, sizes.count(size)) for size in sorted(set(sizes), reverse=True)] + [(chain, 9, 5)]
    columns = ["combination", "drafted_tokens", "steps"]
    pd.DataFrame(counts, columns=columns).to_csv(folder / "sizes.csv", index=False)
    table = sizes_table(findings_of(read_study(folder)))
    assert table is not None
    assert table.rows == [("zoo", "adaptive", "9", "5", "3.4", "1", "1", "2", "9", "9")]
    (folder / "sizes.csv").unlink()
    assert sizes_table(findings_of(read_study(folder))) is None


def quality_rows(folder: Path) -> list[tuple[str, ...]]:
    table = quality_table(findings_of(read_study(folder)))
    return [] if table is None else list(table.rows)
