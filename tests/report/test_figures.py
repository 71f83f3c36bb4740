"""Figures are values: each is made alone, names its own data, and is absent where the study has nothing for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest
from support.made_studies import write_study

from specdraft.report import figures
from specdraft.report.figures import FIGURES, draw
from specdraft.report.figures.base import Figure, together
from specdraft.report.figures.canvas import MOST_SHAPES, Canvas, canvas_of, spread
from specdraft.report.figures.latency import latency
from specdraft.report.figures.settings import settings
from specdraft.report.figures.speedups import estimated_speedup, measured_speedup
from specdraft.report.figures.theory import theory
from specdraft.report.findings import findings_of
from specdraft.report.study_files import read_study
from specdraft.report.words import say


def canvas_for(folder: Path, **sizes: Any) -> Canvas:
    return canvas_of(findings_of(read_study(write_study(folder, **sizes))))


def named_data(part: Any) -> set[str]:
    """The tables that a specification names."""
    if isinstance(part, list):
        return set().union(*map(named_data, part))
    if not isinstance(part, dict):
        return set()
    data = part.get("data")
    names = {data["name"]} if isinstance(data, dict) and "name" in data else set()
    return names.union(*map(named_data, part.values()))


EVERYTHING: dict[str, Any] = {
    "trees": ("chain", "kary", "wide", "hindsight"),
    "settings": (("rejection", 0.7), ("kseq", 1.0)),
}


@pytest.mark.parametrize("live", [False, True])
def test_a_figure_made_alone_has_all_the_data_that_it_names(tmp_path: Path, live: bool) -> None:
    canvas = canvas_for(tmp_path / "s", live=live, **EVERYTHING)
    made = [figure for function in FIGURES if (figure := function(canvas)) is not None]
    assert len({figure.name for figure in made}) == len(made) >= len(FIGURES) - 11
    for figure in made:
        assert figure.spec is not None and named_data(figure.spec) == set(figure.tables), figure.name
        assert all(len(table) and table.columns.is_unique for table in figure.tables.values())


RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.slow
def test_figures_of_committed_studies_are_what_vega_lite_specifies() -> None:
    """Writing a report leaves the check out: it takes as long as half of the figures."""
    drawn = {
        figure.name: figure.spec
        for study in ("smollm2", "drafters/zoo", "live/zoo", "sized/replay")
        for figure in draw(findings_of(read_study(RESULTS / study))).figures
        if figure.spec is not None
    }
    assert len(drawn) >= 15, sorted(drawn)
    for spec in drawn.values():
        alt.Chart.from_dict(spec, validate=True)


def test_figures_that_share_a_table_get_the_columns_of_all_of_them(tmp_path: Path) -> None:
    canvas = canvas_for(tmp_path / "s", **EVERYTHING)
    drawn = draw(canvas.findings)
    shared = [figure.tables["curves"] for figure in drawn.figures if "curves" in figure.tables]
    assert len(shared) == 3
    curves = drawn.datasets["curves"]
    assert set(curves) == set().union(*map(set, shared)) and curves.columns.is_unique
    for table in shared:
        pd.testing.assert_frame_equal(curves[list(table)], table)


def test_the_order_is_that_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = canvas_for(tmp_path / "s").findings
    added = Figure("added", "Added", say("By one function and one line."))
    monkeypatch.setattr(figures, "FIGURES", (lambda canvas: added, lambda canvas: None, *FIGURES))
    assert draw(findings).figures[0] is added
    monkeypatch.undo()
    assert [figure.name for figure in draw(findings).figures] == [
        "block-efficiency",
        "lead",
        "acceptance-length",
        "acceptance-rate",
        "heat",
        "depth",
        "rank",
        "siblings",
        "lengths",
        "est-speedup",
    ]


def test_figures_that_a_study_has_nothing_for_are_absent(tmp_path: Path) -> None:
    replayed, live = canvas_for(tmp_path / "replayed"), canvas_for(tmp_path / "live", live=True)
    assert (latency(replayed), measured_speedup(replayed), estimated_speedup(live)) == (None, None, None)
    assert (settings(replayed), theory(replayed)) == (None, None)


def test_a_study_without_rows_has_no_figures() -> None:
    assert together([]).figures == [] and together([]).datasets == {}


def test_the_chain_and_every_reference_are_drawn_whatever_leads(tmp_path: Path) -> None:
    trees = ("chain", *(f"kary-k{k}" for k in range(2, 40)), "hindsight", "hindsight-md4")
    canvas = canvas_for(tmp_path / "s", trees=trees)
    assert canvas.all_shapes == 39 and len(canvas.trees) == MOST_SHAPES + 2
    assert canvas.trees[0] == "chain" and canvas.trees[-2:] == ["hindsight", "hindsight-md4"]


def test_panels_come_from_every_pair() -> None:
    pair_of = {f"{pair}{number}": pair for pair in "ab" for number in range(3)}
    assert spread(list(pair_of), pair_of, 4) == ["a0", "a1", "b0", "b1"]


def test_what_a_page_can_ask_of_figures(tmp_path: Path) -> None:
    """Each figure that could show less has a parameter for it, by the name of what differs; null leaves it as it is."""
    pairs, rules = ("zoo", "other"), (("rejection", 0.7), ("kseq", 1.0))
    drawn = draw(canvas_for(tmp_path / "s", pairs=pairs, settings=rules).findings)
    specs = {figure.name: figure.spec for figure in drawn.figures if figure.spec}
    assert specs["block-efficiency"]["usermeta"] == {
        "controls": {"pair": [*pairs], "setting": ["rejection · T=0.7", "kseq · T=1"]},
        "metric": "block_efficiency",
    }
    assert specs["depth"]["usermeta"]["controls"]["budget"] == [2, 4]
    for spec in specs.values():
        choices = spec.get("usermeta", {}).get("controls", {})
        parameters = {each["name"]: each.get("value") for each in spec.get("params", [])}
        filters = [each["filter"] for each in spec.get("transform", [])[: len(choices)]]
        for name, asked in zip(choices, filters, strict=True):
            assert parameters[name] is None and asked.startswith((f"{name} === null ?", f"{name} === null ||"))
    for name, table in drawn.datasets.items():
        if "panel" in table:
            assert list(table["panel"]) == list(table["pair"] + " · " + table["setting"]), name
    single = draw(canvas_for(tmp_path / "single", budgets=(4,)).findings)
    assert all("controls" not in figure.spec.get("usermeta", {}) for figure in single.figures if figure.spec)


def test_a_choice_leaves_the_other_settings_and_budgets_out(tmp_path: Path) -> None:
    import vl_convert

    drawn = draw(canvas_for(tmp_path / "s", pairs=("zoo", "other"), trees=("chain", "kary")).findings)
    (depth,) = (figure for figure in drawn.figures if figure.name == "depth")
    assert depth.spec is not None
    rows = depth.tables["depth"].to_dict("records")
    marks = []
    for choice in ({}, {"pair": "other"}, {"budget": 2}):
        params = [
            each | ({"value": choice[each["name"]]} if each["name"] in choice else {}) for each in depth.spec["params"]
        ]
        svg = vl_convert.vegalite_to_svg(depth.spec | {"params": params, "datasets": {"depth": rows}})
        marks.append((">zoo<" in svg, ">other<" in svg, ">at a node budget of 2<" in svg))
        assert svg.count('aria-roledescription="point"') == (8 if choice.get("pair") else 16)  # of one budget always
    assert marks == [(True, True, False), (False, True, False), (True, True, True)]
