"""Trees that stop where it pays: the prefix with the largest expected tokens per second, live and replayed alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.asked import prompts_of, tiny_pair_of
from support.tiny_models import PairFolders

from specdraft.bench import costs
from specdraft.bench.cost_file import write_costs
from specdraft.bench.curve import Circumstances, CostCurve
from specdraft.errors import ConfigError
from specdraft.prediction.pruning import NoPruning
from specdraft.prediction.pruning.adaptive import Adaptive
from specdraft.prediction.pruning.ratio import Ratio
from specdraft.report.figures.canvas import canvas_of
from specdraft.report.figures.sized import FIXED, SIZED, sized
from specdraft.report.findings import findings_of
from specdraft.report.sized_table import sized_table
from specdraft.report.study_files import read_study
from specdraft.report.table import value_cell
from specdraft.report.words import plain
from specdraft.results.study_tables import read_records
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study
from specdraft.study.sizing import sizing
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain

COUNTS = ["steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens", "pruned_tokens"]
KEYS = ["tree", "pruning", "engine", "prompt_id"]
TREE = ["tree=best_first", "tree.scores=calibrated", "budget=8"]


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    prompts = prompts_of(tmp_path_factory.mktemp("prompts"))
    return [*tiny_pair_of(tiny_pair_folders), *prompts, "report=false", "max_new_tokens=10"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def rows(base: list[str], folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Of two studies: trees with a stop and whole ones, and the same ones pruned, where four nodes cost no more than
    one."""

    def cheap_up_to_four(*given: Any, **named: Any) -> CostCurve:
        flat = [[1, 4, 5, 16], [0.001] * 4, [0.01, 0.01, 0.02, 0.02], 0.01, 0.001, 0.0, 0.02, 0.01]
        return CostCurve(*flat, 1, "a processor", Circumstances("2026-01-01", 0.0, 1.0, {}))  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.mktemp("traces")))
        patch.setattr(costs, "measure_costs", cheap_up_to_four)
        parts = []
        for number, ways in enumerate((["tree.stop=goodput,budget"], ["pruning=adaptive"])):
            done = run_study(plan_study([*base, *TREE, *ways, "engine=live,replay"]), folder / str(number))
            assert not done.failures
            parts.append(read_records(done.out).astype(dict.fromkeys(KEYS, str)))
    table = pd.concat(parts)
    return table[table["tree"].str.startswith("best_first")].set_index(KEYS)[COUNTS].sort_index()


def test_live_is_replay_and_both_are_what_pruning_leaves(rows: pd.DataFrame) -> None:
    stopped = rows.loc["best_first-calibrated-goodput"].droplevel("pruning")
    assert len(stopped) == 2 * 4
    pd.testing.assert_frame_equal(stopped.loc["live"], stopped.loc["replay"])
    pd.testing.assert_frame_equal(stopped, rows.loc[("best_first-calibrated", "adaptive")])


def test_the_tree_is_sized_by_steps_of_the_costs(rows: pd.DataFrame) -> None:
    """Four tokens fit before verifying takes twice the time: three nodes are never fewer, often no more."""
    stopped, whole = rows.loc["best_first-calibrated-goodput"], rows.loc[("best_first-calibrated", "none")]
    assert (whole["drafted_tokens"] == 8 * whole["steps"]).all()
    assert (stopped["drafted_tokens"] + stopped["pruned_tokens"] == 8 * stopped["steps"]).all()
    assert (stopped["drafted_tokens"] >= 3 * stopped["steps"]).all()
    assert stopped["drafted_tokens"].sum() < 6 * stopped["steps"].sum()


def test_how_many_nodes_were_sent_is_counted_in_both_engines(rows: pd.DataFrame, folder: Path) -> None:
    sizes = pd.read_csv(folder / "0" / "sizes.csv")
    own = sizes[sizes["tree"] == "best_first-calibrated-goodput"].set_index(["engine", "drafted_tokens"])["steps"]
    assert own.loc["live"].to_dict() == own.loc["replay"].to_dict()
    replayed = rows.loc["best_first-calibrated-goodput"].xs("replay", level="engine")
    assert own.loc["replay"].sum() == replayed["steps"].sum()
    assert (own.loc["replay"] * own.loc["replay"].index).sum() == replayed["drafted_tokens"].sum()
    assert len(own.loc["replay"]) > 1


def test_the_report_sets_it_beside_every_fixed_budget(rows: pd.DataFrame, folder: Path) -> None:
    table = sized_table(findings_of(read_study(folder / "0")))
    assert table is not None
    replayed, live = sorted(table.rows, key=lambda row: "live" in row[0])
    assert replayed[1:3] == live[1:3] == ("best_first-calibrated-goodput", "8")
    records = pd.read_csv(folder / "0" / "records.csv").astype({"tree": str})
    records = records[records["engine"] == "replay"]
    by_tree = dict(iter(records.groupby("tree")))
    seconds = {tree: (some["new_tokens"] / some["est_tokens_per_s"]).sum() for tree, some in by_tree.items()}
    tokens, sized = by_tree["best_first-calibrated"]["new_tokens"].sum(), by_tree["best_first-calibrated-goodput"]
    assert replayed[3] == f"{sized['drafted_tokens'].sum() / sized['steps'].sum():.1f}"
    assert replayed[4] == value_cell(tokens / seconds["best_first-calibrated-goodput"])
    fixed = value_cell(tokens / seconds["best_first-calibrated"])
    assert replayed[5:7] == (f"{fixed} with 8", fixed)  # one budget is the best one, for every prompt
    assert replayed[8].startswith("+")
    assert sized_table(findings_of(read_study(folder / "1"))) is None


def test_the_figure_shows_both_and_no_tree(rows: pd.DataFrame, folder: Path) -> None:
    figure = sized(canvas_of(findings_of(read_study(folder / "0"))))
    assert figure is not None
    table = figure.tables["sized"].set_index(["panel", "way"])
    assert len(table) == 4 and (table.loc[(slice(None), FIXED), "nodes"] == 8).all()
    replayed = next(panel for panel, _ in table.index if "live" not in panel)
    own = table.loc[(replayed, SIZED)]
    sent = rows.loc["best_first-calibrated-goodput"].xs("replay", level="engine")
    assert own["nodes"] == pytest.approx(sent["drafted_tokens"].sum() / sent["steps"].sum())
    assert own["plain_tokens_per_s"] == pytest.approx(table.loc[(replayed, FIXED), "plain_tokens_per_s"])
    assert f"{table.loc[replayed, 'tokens_per_s'].max():.1f} tokens per second" in plain(figure.caption)
    assert sized(canvas_of(findings_of(read_study(folder / "1")))) is None


def test_a_table_of_costs_sizes_live_trees(base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing is replayed; without what weighs costs it has no effect."""
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    table, flat = tmp_path / "costs.json", [[1, 2, 16], [0.001] * 3, [0.01, 1.0, 1.0], 0.01, 0.001, 0.0, 0.02, 0.01]
    dear = CostCurve(*flat, 1, "a processor", Circumstances("2026-01-01", 0.0, 1.0, {}))  # type: ignore[arg-type]
    write_costs(table, plan_study([*base, "engine=live", *TREE]).combinations[0].pair, [dear])
    asked = [*base, "engine=live", f"cost.table={table}", *TREE]
    done = run_study(plan_study([*asked, "tree.stop=goodput"]), tmp_path / "out")
    sized = done.tables["summary.csv"].query("tree == 'best_first-calibrated-goodput'")
    assert not done.failures and sized["drafted_tokens"].tolist() == [0]  # two tokens cost as much as a hundred
    with pytest.raises(ConfigError, match="has no effect: nothing is replayed"):
        plan_study(asked)


def test_what_a_stop_means() -> None:
    tree = BestFirst(scores="predictor", predictor="file", stop="goodput")
    assert sizing(tree, NoPruning()) == Adaptive(scores="predictor", predictor="file")
    assert sizing(Chain(), Ratio()) == Ratio() and sizing(BestFirst(), Ratio()) == Ratio()
    with pytest.raises(ConfigError, match="pruning=ratio does not go with"):
        sizing(tree, Ratio())
    assert tree.label == "best_first-predictor-goodput"
    assert BestFirst().identity() == BestFirst(stop="budget").identity() != BestFirst(stop="goodput").identity()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["tree.stop=goodpt"], "tree.stop=goodpt is not known; did you mean 'goodput'"),
        (["tree.stop=goodput", "tree.temperature=0.5"], "tree.temperature=0.5 does not go with tree.stop=goodput"),
        (["tree.stop=goodput", "pruning=ratio"], "pruning=ratio does not go with tree.stop=goodput"),
        (["tree.stop=goodput", "cost.measure=off"], "pruning=adaptive weighs measured costs"),
    ],
)
def test_what_cannot_be(base: list[str], overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        plan_study([*base, *TREE, *overrides])


def test_in_a_grid_what_does_not_go_together_is_left_out(base: list[str], tmp_path: Path) -> None:
    plan = plan_study([*base, *TREE, "tree.stop=goodput", "pruning=none,ratio"])
    assert [why for _, why in plan.skipped] == [
        "pruning=ratio does not go with tree.stop=goodput, which says itself how many nodes are sent"
    ]
