"""What the report says of draft temperatures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from support.made_studies import write_study

from specdraft.report.figures.base import Figure
from specdraft.report.figures.canvas import canvas_of
from specdraft.report.figures.draft_temperature import draft_temperature
from specdraft.report.figures.theory import theory
from specdraft.report.findings import findings_of
from specdraft.report.study_files import read_study
from specdraft.report.words import plain

SETTINGS = (("rejection", 1.0), ("block", 1.0))
FALLING = {"0.6": 2.0, "": 1.8, "1.4": 1.5, "1-0.6": 1.9}  # draft temperature -> block efficiency of `rejection`


def study(folder: Path, efficiency: dict[str, float], spread: float = 0.05) -> Path:
    """`block` always gets 0.5 more at the target's temperature, and 0.1 less elsewhere."""
    write_study(folder, trees=("chain",), budgets=(2, 4), settings=SETTINGS)
    summary = pd.read_csv(folder / "summary.csv", dtype={"combination": str})
    parts = []
    for number, (drawn, value) in enumerate(efficiency.items()):
        more = 0.5 if not drawn else -0.1
        own = value + more * (summary["acceptance"] == "block")
        names = [f"{number}{name[1:]}" for name in summary["combination"]]
        ends = {"block_efficiency_lo": own - spread, "block_efficiency_hi": own + spread}
        parts.append(
            summary.assign(combination=names, draft_temperature=drawn, alpha=0.5, block_efficiency=own, **ends)
        )
    pd.concat(parts).to_csv(folder / "summary.csv", index=False)
    return folder


def figure_of(folder: Path) -> Figure | None:
    return draft_temperature(canvas_of(findings_of(read_study(folder))))


def test_a_line_per_rule(tmp_path: Path) -> None:
    figure = figure_of(study(tmp_path / "s", FALLING))
    assert figure is not None and figure.spec is not None
    assert plain(figure.caption).startswith(
        "zoo · chain, 4 nodes: rejection gets most at 0.6 (2.00 [1.95, 2.05]), 1.80 [1.75, 1.85] at the target's, "
        "intervals apart; block gets most at 1 (2.30 [2.25, 2.35]), the target's own temperature."
    )
    table = figure.tables["draft_temperature"]
    rejection = table[table["acceptance"] == "rejection"].set_index("drawn_at")["block_efficiency"]
    assert rejection.round(2).to_dict() == {"0.6": 2.0, "1": 1.8, "1.4": 1.5, "1-0.6": 1.9}
    assert table.loc[table["by_depth"], "drawn_at"].unique().tolist() == ["1-0.6"]
    assert figure.spec["data"] == {"name": "draft_temperature"}
    layers = figure.spec["spec"]["layer"]
    assert layers[0]["encoding"]["x"]["sort"] == ["0.6", "1", "1.4", "1-0.6"]
    assert [layer["mark"]["type"] for layer in layers] == ["rule", "line", "point"]


def test_intervals_that_overlap(tmp_path: Path) -> None:
    figure = figure_of(study(tmp_path / "s", {"0.6": 2.0, "": 1.9}, spread=0.2))
    assert figure is not None
    assert (
        "rejection gets most at 0.6 (2.00 [1.80, 2.20]), 1.90 [1.70, 2.10] at the target's, intervals overl"
        in plain(figure.caption)
    )


def test_no_figure_where_all_draw_as_the_target(tmp_path: Path) -> None:
    assert figure_of(write_study(tmp_path / "s", settings=SETTINGS)) is None
    only_one = study(tmp_path / "one", {"0.6": 2.0})
    assert figure_of(only_one) is None
    one_each = study(tmp_path / "each", {"0.6": 2.0, "": 1.9})
    summary = pd.read_csv(one_each / "summary.csv", dtype=str, keep_default_na=False)
    of_rule = (summary["acceptance"] == "block") == (summary["draft_temperature"] == "")
    summary[of_rule].to_csv(one_each / "summary.csv", index=False)
    assert figure_of(one_each) is None


def test_the_closed_form_is_for_one_temperature(tmp_path: Path) -> None:
    """Its alpha is that of all depths."""
    figure = theory(canvas_of(findings_of(read_study(study(tmp_path / "s", FALLING)))))
    assert figure is not None
    assert not figure.tables["theory"]["panel"].str.contains("1-0.6").any()
    assert figure.tables["theory"]["panel"].str.contains("0.6").any()


def test_a_study_of_before_has_no_such_column(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", settings=SETTINGS)
    for path in folder.glob("*.csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.drop(columns="draft_temperature", errors="ignore").to_csv(path, index=False)
    files = read_study(folder)
    assert (files.summary["draft_temperature"] == "").all()
    assert not [note for note in files.notes if "draft_temperature" in note]
