"""The figure of acceptance by the distance from the root: its numbers, and where it is absent."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from support.made_studies import write_study

from specdraft.report.figures.base import Figure
from specdraft.report.figures.canvas import canvas_of
from specdraft.report.figures.offsets import offsets
from specdraft.report.findings import findings_of
from specdraft.report.study_files import read_study
from specdraft.report.words import plain
from specdraft.results.kept_tables import OFFSETS

TEXTS = {"pair": "zoo", "temperature": 0, "top_k": 0, "top_p": 1, "max_new_tokens": 64}
ROWS = {  # drafter -> offset, places, top, reached, accepted, fresh
    "eagle": [(1, 1000, 600, 1000, 600, 600), (2, 990, 400, 594, 297, 416), (3, 980, 300, 29, 10, 20)],
    "model": [(1, 1000, 500, 1000, 500, 500), (2, 990, 480, 495, 198, 198)],
}


def figure_of(folder: Path, drafters: list[str]) -> Figure | None:
    write_study(folder)
    columns = ["offset", "places", "top", "reached", "accepted", "fresh"]
    tables = [pd.DataFrame(ROWS[name], columns=columns).assign(drafter=name, **TEXTS) for name in drafters]
    if tables:
        pd.concat(tables)[OFFSETS.columns].to_csv(folder / "offsets.csv", index=False)
    return offsets(canvas_of(findings_of(read_study(folder))))


def test_three_curves_a_drafter(tmp_path: Path) -> None:
    figure = figure_of(tmp_path / "s", ["eagle", "model"])
    assert figure is not None and figure.spec is not None
    said = plain(figure.caption)
    assert (
        "zoo · eagle: a chain of 2 has 0.90 accepted tokens; with fresh states at every level it would have 1.02, and "
        "0.96 if all were as good as the first (60.0%)."
    ) in said
    assert (
        "zoo · model: a chain of 2 has 0.70 accepted tokens; with fresh states at every level it would have 0.70"
        in said
    )
    drawn = figure.tables["offsets"].set_index(["panel", "curve", "offset"])["share"]
    assert drawn["zoo · eagle", "free-running", 2] == 0.5
    assert drawn["zoo · eagle", "fresh states at the same places", 2] == 416 / 594
    assert drawn["zoo · eagle", "at all places", 3] == 300 / 980
    assert ("zoo · eagle", "free-running", 3) not in drawn  # 29 roots


def test_one_drafter_is_named_by_its_pair(tmp_path: Path) -> None:
    figure = figure_of(tmp_path / "s", ["eagle"])
    assert figure is not None and plain(figure.caption).startswith("zoo: a chain of 2")


def test_no_offsets(tmp_path: Path) -> None:
    assert figure_of(tmp_path / "s", []) is None
