"""The opening figure: what is named, where the names stand, and what is said to be best at each budget."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pandas as pd
from support.made_studies import write_study

from specdraft.report.figures.canvas import Canvas, canvas_of
from specdraft.report.figures.opening import (
    BEST,
    END,
    LETTER,
    LINE,
    MOST_NAMED,
    apart,
    block_efficiency,
    closest_to_the_best,
    lanes_of,
    pixel,
)
from specdraft.report.findings import findings_of
from specdraft.report.study_files import read_study
from specdraft.report.words import plain

TREES = ("chain", "wide", *(f"kary-k{k}" for k in range(2, 10)), "hindsight")


def canvas(folder: Path, **sizes: object) -> Canvas:
    sizes = {"trees": TREES, "budgets": (2, 4, 8)} | sizes
    return canvas_of(findings_of(read_study(write_study(folder / "s", **sizes))))  # type: ignore[arg-type]


def test_few_are_named_the_chain_among_them_and_the_others_are_grey(tmp_path: Path) -> None:
    drawn = canvas(tmp_path)
    named = closest_to_the_best(drawn)
    figure = block_efficiency(drawn)
    table = figure.tables["opening"]
    assert len(named) == MOST_NAMED and {"chain", "kary-k9"} <= set(named) and "hindsight" not in named
    ends = table[table["part"] == END]
    assert set(ends["shown"]) == {*named, "hindsight"}
    assert list(ends["label"]) == [
        f"{one} {value:.2f}" for one, value in zip(ends["shown"], ends["value"], strict=True)
    ]
    lines = table[table["part"] == LINE]
    assert set(lines["shown"]) == set(TREES)
    grey = [tree for tree in TREES if tree not in (*named, "hindsight")]
    assert f"In grey: {', '.join(grey[:-1])} and {grey[-1]}." in plain(figure.caption)


def test_what_is_best_at_each_budget_is_that_of_the_leads(tmp_path: Path) -> None:
    drawn = canvas(tmp_path, pairs=("zoo", "other"))
    table = block_efficiency(drawn).tables["opening"]
    best = table[table["part"] == BEST]
    leads = {(lead.panel, lead.budget): lead for lead in drawn.findings.leads}
    assert len(best) == len(leads) == 6
    for row in best.to_dict("records"):
        lead = leads[row["panel"], row["budget"]]
        assert (row["shown"], row["sure"]) == (lead.tree, lead.verdict)
    for _, rows in best.groupby("panel"):
        said = rows["middle"].notna().sum()
        assert said == sum(one != other for one, other in pairwise([None, *rows["name"]]))


def test_names_below_each_other_do_not_touch_and_the_short_runs_give_way(tmp_path: Path) -> None:
    drawn = canvas(tmp_path, budgets=(1, 64))
    ends = [(n, n) for n in range(1, 17)] + [(17, 64)]
    runs = [(f"shape {first} and 1 equal", first, last) for first, last in ends]
    lanes = lanes_of(runs, drawn)
    assert lanes[-1] == 0 and set(lanes) == {0, 1, 2, None}
    for lane in range(3):
        places = [
            pixel(drawn, (first * last) ** 0.5) for (_, first, last), at in zip(runs, lanes, strict=True) if at == lane
        ]
        assert all(later - place >= len(runs[0][0]) * LETTER for place, later in pairwise(places))


def test_names_do_not_touch_and_move_as_little_as_they_can() -> None:
    assert apart([1.0, 2.0, 3.0], 0.5) == [1.0, 2.0, 3.0]
    assert apart([1.0, 1.0], 1.0) == [0.5, 1.5]
    moved = apart([1.0, 1.1, 1.2, 5.0], 1.0)
    assert [round(value, 9) for value in moved] == [0.1, 1.1, 2.1, 5.0]
    values = sorted(pd.Series(range(40)).mul(0.37).mod(3.0))
    placed = apart(values, 0.2)
    assert all(b - a >= 0.2 - 1e-9 for a, b in pairwise(placed))
    assert abs(sum(placed) - sum(values)) < 1e-9 and apart([], 1.0) == []


def test_a_single_budget_has_a_line_per_shape(tmp_path: Path) -> None:
    figure = block_efficiency(canvas(tmp_path, budgets=(4,)))
    assert set(figure.tables) == {"curves"} and figure.name == "block-efficiency"
