"""Whether the probabilities that rank the nodes of dynamic trees are those of acceptance."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.replay.reliability import calibration_error
from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_PANELS, Canvas
from specdraft.report.figures.captions import settings_left_out
from specdraft.report.figures.charts import facet
from specdraft.report.figures.details import text_panels
from specdraft.report.study_files import visible
from specdraft.report.theme import GREY
from specdraft.report.words import Name, Text, join, say

TITLE = "Predicted against observed acceptance"
FILE = "reliability.csv"
FEWEST = 30  # nodes; a share of fewer is noise
MOST_RANK = 3  # child ranks that are drawn by depth, from 1


def reliability(canvas: Canvas) -> Figure | None:
    """A point per bin of predicted survival; None where no trees were ranked by probabilities."""
    table = canvas.findings.study.details.get(FILE)
    if table is None or table.empty:
        return None
    bins = _rows(table, "survival", "score")
    every = list(dict.fromkeys(bins["panel"]))
    panels = every[:MOST_PANELS]
    shown = bins[bins["panel"].isin(panels) & (bins["nodes"] >= FEWEST)]
    note = say(
        "Of every node of the trees at every place of the recorded texts: the predicted probability that it is on the "
        "target's text, and how often it is. On the dashed line both agree; below it the drafter is too sure."
    )
    caption = join([*(_error(panel, bins) for panel in panels), note, settings_left_out(every, panels)])
    tables = {"reliability": shown.reset_index(drop=True), "certain": pd.DataFrame({"v": [0.0, 1.0]})}
    return drawn("reliability", TITLE, caption, _chart(panels), tables)


def survival(canvas: Canvas) -> Figure | None:
    """Predicted and observed survival by depth and child rank; None as `reliability`."""
    table = canvas.findings.study.details.get(FILE)
    if table is None or table.empty:
        return None
    places = _rows(table, "survival", "place")
    places = places[(places["rank"] < MOST_RANK) & (places["nodes"] >= FEWEST)]
    best = places.assign(order=places["scores"].ne("calibrated")).sort_values("order", kind="stable")
    kept = places[places["scores"].eq(places["panel"].map(best.drop_duplicates("panel").set_index("panel")["scores"]))]
    long = kept.assign(child="rank " + (kept["rank"] + 1).astype(str)).melt(
        ["panel", "scores", "depth", "child", "nodes"], ["predicted", "observed"], "which", "share"
    )
    every = list(dict.fromkeys(long["panel"]))
    panels = every[:MOST_PANELS]
    x = alt.X("depth:Q", title="depth in the tree (tokens)", axis=alt.Axis(format="d", tickMinStep=1, grid=False))
    y = alt.Y("share:Q", title="nodes on the target's text (share)")
    dash = alt.StrokeDash("which:N", title=None, legend=alt.Legend(symbolType="stroke"))
    lines = (
        alt.Chart().mark_line(point=True).encode(x=x, y=y, color=alt.Color("child:N", title="child"), strokeDash=dash)
    )
    lines = lines.encode(tooltip=["child:N", "which:N", "depth:Q", alt.Tooltip("share:Q", format=".3f"), "nodes:Q"])
    caption = say(
        "By depth and child rank, of trees ranked by {} scores, all their nodes pooled. Deep nodes are in a tree only "
        "where the drafter is sure, so shares need not fall with depth. {}",
        Name(" or ".join(dict.fromkeys(kept["scores"]))),
        settings_left_out(every, panels),
    )
    chart = facet(alt.layer(lines), named("survival"), panels, height=200)
    shown = long[long["panel"].isin(panels)].reset_index(drop=True)
    return drawn("survival", "Survival by depth and child rank", caption, chart, {"survival": shown})


def _rows(table: pd.DataFrame, what: str, by: str) -> pd.DataFrame:
    rows = table[(table["what"] == what) & (table["by"] == by)].copy()
    rows["panel"] = text_panels(rows)
    rows["scores"] = rows["scores"].map(visible)
    keys = ["panel", "scores", "depth", "rank", "bin"]
    rows["sum"] = rows["predicted"] * rows["nodes"]
    rows = rows.groupby(keys, sort=False)[["nodes", "accepted", "sum"]].sum().reset_index()
    return rows.assign(predicted=rows["sum"] / rows["nodes"], observed=rows["accepted"] / rows["nodes"])


def _chart(panels: list[str]) -> Any:
    scale = alt.Scale(domain=[0, 1])
    diagonal = alt.Chart(named("certain")).mark_line(strokeDash=[4, 4], color=GREY).encode(x="v:Q", y="v:Q")
    x = alt.X("predicted:Q", title="predicted (probability)", scale=scale)
    y = alt.Y("observed:Q", title="observed (share)", scale=scale)
    colour = alt.Color("scores:N", title="scores")
    tooltip = [
        "scores:N",
        alt.Tooltip("predicted:Q", format=".3f"),
        alt.Tooltip("observed:Q", format=".3f"),
        "nodes:Q",
    ]
    lines = alt.Chart().mark_line(point=True).encode(x=x, y=y, color=colour, tooltip=tooltip)
    return facet(alt.layer(diagonal, lines), named("reliability"), panels, height=240)


def _error(panel: str, bins: pd.DataFrame) -> Text:
    """The calibration error of each kind of scores."""
    rows = bins[bins["panel"] == panel]
    errors = []
    for scores, some in rows.groupby("scores", sort=False):
        errors.append(f"{calibration_error(some):.3f} by {scores} scores")
    return say("{}: expected calibration error {}.", Name(panel), ", ".join(errors))
