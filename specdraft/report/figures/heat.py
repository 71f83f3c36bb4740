"""Tokens per step of every shape at every budget, as a grid of colours."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.cross_fit import best_row
from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import left_out
from specdraft.report.figures.charts import facet
from specdraft.report.findings import fair
from specdraft.report.study_files import visible
from specdraft.report.theme import HEAT
from specdraft.report.words import Name, Text, join, names, plural, say

TITLE = "Shape by budget: tokens per step"
MOST_HEAT_ROWS = 30
MOST_NUMBERED_BUDGETS = 10  # more columns leave no room for numbers


def heat(canvas: Canvas) -> Figure:
    """A cell per shape and budget, the shapes with the highest cells first."""
    rows = canvas.rows[canvas.rows["panel"].isin(canvas.panels)]
    if rows["tree"].nunique() < 2 and rows["budget"].nunique() < 2:
        return Figure("heat", TITLE, say("Not drawn: one shape at one budget gives a single cell."))
    best = rows.groupby("tree")["block_efficiency"].max().sort_values(ascending=False)
    trees = list(best.index[:MOST_HEAT_ROWS])
    rows = rows[rows["tree"].isin(trees)]
    more = list(map(visible, best.index[MOST_HEAT_ROWS:]))
    left = say("The {} shapes with the highest cells are drawn; only in the table: {}.", MOST_HEAT_ROWS, names(more))
    seen = say(
        "Brighter is more tokens per pass of the target; an empty cell was not measured. {}",
        join([_best_cell(canvas, panel, rows) for panel in canvas.panels_of(rows)[:MOST_SPOKEN]]),
    )
    caption = join([seen, left if more else (), left_out(canvas, shapes=False)])
    table = rows[["panel", "shown", "budget", "block_efficiency"]].reset_index(drop=True)
    return drawn("heat", TITLE, caption, _chart(canvas, rows, trees), {"heat": table})


def _chart(canvas: Canvas, rows: pd.DataFrame, trees: list[str]) -> Any:
    budgets = alt.Axis(labelAngle=0, labelOverlap="greedy", format="d")
    x = alt.X("budget:O", title="node budget (draft nodes)", axis=budgets)
    y = alt.Y("shown:N", title="shape", sort=[visible(tree) for tree in trees])
    colour = alt.Color(
        "block_efficiency:Q",
        scale=alt.Scale(scheme=HEAT),
        legend=alt.Legend(title="tokens per step", gradientLength=200),
    )
    # width 260 is fixed: cells without room for a number have none
    tooltip = [alt.Tooltip(field) for field in ("panel:N", "shown:N", "budget:O", "block_efficiency:Q")]
    layers: list[Any] = [alt.Chart().mark_rect().encode(x=x, y=y, tooltip=tooltip, color=colour)]
    if rows["budget"].nunique() <= MOST_NUMBERED_BUDGETS:
        middle = (rows["block_efficiency"].min() + rows["block_efficiency"].max()) / 2
        ink: Any = alt.condition(f"datum.block_efficiency > {middle}", alt.value("#111111"), alt.value("#ffffff"))
        text = alt.Text("block_efficiency:Q", format=".2f")
        layers.append(alt.Chart().mark_text(fontSize=10.5).encode(x=x, y=y, text=text, color=alt.ColorValue(**ink)))
    return facet(alt.layer(*layers), named("heat"), canvas.panels_of(rows), height=max(50, 22 * len(trees)))


def _best_cell(canvas: Canvas, panel: str, rows: pd.DataFrame) -> Text:
    rows = fair(rows[rows["panel"] == panel])
    if rows.empty:
        return ()
    top, value = best_row(canvas.findings.halves, rows, "block_efficiency")
    return say(
        "{}: the highest cell is {} at {}, {}.",
        Name(panel),
        Name(top["shown"]),
        plural(int(top["budget"]), "node"),
        value,
    )
