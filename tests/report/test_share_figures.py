"""Shares of steps: their intervals, cumulative lengths, categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.made_studies import write_study

from specdraft.report.depth_table import depth_table
from specdraft.report.figures.canvas import Canvas, canvas_of
from specdraft.report.figures.categories import categories
from specdraft.report.figures.depth import depth
from specdraft.report.figures.lengths import at_least, lengths
from specdraft.report.figures.ranks import ranks
from specdraft.report.figures.shares import design_effects, with_intervals
from specdraft.report.findings import findings_of
from specdraft.report.study_files import read_study
from specdraft.report.words import plain
from specdraft.results.intervals import NORMAL


def canvas(folder: Path) -> Canvas:
    return canvas_of(findings_of(read_study(folder)))


def test_a_step_is_worth_what_prompts_say(tmp_path: Path) -> None:
    """Texts with a tendency of their own: the interval of a depth's share is as wide as the one over prompts."""
    rng = np.random.default_rng(0)
    accepted = [rng.binomial(1, rate, 50) for rate in rng.beta(4, 4, 400)]
    over_prompts = np.std([steps.mean() for steps in accepted], ddof=1) / np.sqrt(400)
    mean = float(np.mean(accepted))
    row = {"combination": "a", "acceptance_length_lo": mean - NORMAL * over_prompts,
           "acceptance_length_hi": mean + NORMAL * over_prompts}  # fmt: skip
    ones = int(np.sum(accepted))
    counts = pd.DataFrame({"combination": "a", "acceptance_length": [0, 1], "steps": [20_000 - ones, ones]})
    (effect,) = design_effects(pd.DataFrame([row]), counts)
    assert effect > 4
    table = pd.DataFrame({"rate": [mean], "reached": [20_000], "effect": [effect]})
    given = with_intervals(table, "rate", "reached").iloc[0]
    assert given["high"] - given["low"] == pytest.approx(2 * NORMAL * over_prompts, rel=0.02)
    (alike,) = design_effects(
        pd.DataFrame([row | {"acceptance_length_hi": row["acceptance_length_lo"] + 1e-9}]), counts
    )
    assert alike == 1
    assert design_effects(pd.DataFrame([row]), None).isna().all()


def test_intervals_stay_within_what_a_share_can_be() -> None:
    table = pd.DataFrame({"rate": [0.0, 1.0, 0.5, 0.5], "n": [20, 20, 20, 20], "effect": [1.0, 1.0, 1.0, np.nan]})
    given = with_intervals(table, "rate", "n")
    assert given["low"].iloc[0] == pytest.approx(0) and given["high"].iloc[0] == pytest.approx(
        0.161, abs=1e-3
    )  # Wilson's table
    assert given["high"].iloc[1] == pytest.approx(1) and given["low"].iloc[1] == pytest.approx(0.839, abs=1e-3)
    assert given["low"].iloc[2] == pytest.approx(0.299, abs=1e-3) and given[["low", "high"]].iloc[3].isna().all()


def test_depths_have_both_rates_with_their_intervals(tmp_path: Path) -> None:
    """Of 1,000 steps 500 accept the first token, and of the 500 that get to the second one 250."""
    drawn = canvas(write_study(tmp_path / "s", trees=("chain", "kary"), budgets=(4,)))
    table = depth(drawn).tables["depth"]
    rows = table[table["shown"] == "chain"].sort_values(["share", "depth"])
    assert rows[["share", "depth", "steps", "rate"]].values.tolist() == [
        ["conditional_rate", 1, 1000, 0.5],
        ["conditional_rate", 2, 500, 0.5],
        ["marginal_rate", 1, 1000, 0.5],
        ["marginal_rate", 2, 1000, 0.25],
    ]
    assert (rows["low"] < rows["rate"]).all() and (rows["rate"] < rows["high"]).all()
    listed = depth_table(drawn.findings)
    assert listed is not None
    second = next(row for row in listed.rows if row[1] == "chain" and row[3] == "2")
    assert second[2:6] == ("4", "2", "500", "250")
    assert second[6].startswith("0.500 [0.4") and second[7].startswith("0.250 [0.2")
    (write_study(tmp_path / "t") / "positions.csv").unlink()
    assert depth_table(canvas(tmp_path / "t").findings) is None


def test_lengths_are_cumulative() -> None:
    place = {"panel": "zoo", "shown": "chain", "budget": 4, "headline": True, "effect": 1.0}
    rows = pd.DataFrame({"acceptance_length": [0, 3, 1], "steps": [5, 2, 3]}).assign(**place)
    table = at_least(rows)
    assert table["tokens"].tolist() == [0, 1, 2, 3] and table["rate"].tolist() == [1.0, 0.5, 0.2, 0.2]


def test_shares_without_intervals_over_prompts_have_none(tmp_path: Path) -> None:
    few, many = canvas(write_study(tmp_path / "few", prompts=3)), canvas(write_study(tmp_path / "many"))
    for figure_of in (depth, ranks, lengths):
        without, bounded = figure_of(few), figure_of(many)
        assert set(bounded.tables[bounded.name]["budget"]) == {2, 4}
        assert without.tables[without.name]["low"].isna().all() and "No intervals" in plain(without.caption)
        table = bounded.tables[bounded.name]
        assert (table["low"] < table["rate"]).all() and "95 % intervals (Wilson 1927)" in plain(bounded.caption)


def test_categories_side_by_side(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    assert categories(canvas(folder)) is None
    summary = pd.read_csv(folder / "summary.csv", dtype={"combination": str})
    both = pd.concat([summary.assign(category=name, block_efficiency=summary["block_efficiency"] + more)
                      for name, more in (("story", 0), ("code", 1))])  # fmt: skip
    both.loc[(both["tree"] == "chain") & (both["category"] == "code"), "block_efficiency"] += 5
    both.to_csv(folder / "by_category.csv", index=False)
    figure = categories(canvas(folder))
    assert figure is not None and figure.spec is not None
    table = figure.tables["categories"]
    assert set(table["category"]) == {"story", "code"} and set(table["shown"]) == {"kary", "chain"}
    assert "kary is first of the shapes drawn in 1 of 2 categories, with " in plain(figure.caption)
    both.assign(category="story").to_csv(folder / "by_category.csv", index=False)
    assert categories(canvas(folder)) is None
