"""Whether widening a tree pays: what happens one level below a sibling of the drafter's first choice."""

from __future__ import annotations

from typing import Any

import altair as alt

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import absent, left_out_details
from specdraft.report.figures.charts import evenly, facet
from specdraft.report.figures.details import (
    PLACE,
    at_budgets,
    chosen_details,
    detail_rows,
    often_reached,
    pointed_lines,
    share_tips,
)
from specdraft.report.figures.shares import about_intervals, percent, with_intervals
from specdraft.report.words import Name, Text, join, say

FILE = "siblings.csv"


def siblings(canvas: Canvas) -> Figure | None:
    """How often the level below an accepted node is accepted, by the node's rank; None without the table."""
    if FILE not in canvas.findings.study.details:
        return None
    chosen = chosen_details(canvas)
    title = f"One level below a sibling{at_budgets(chosen)}"
    rows = detail_rows(canvas, FILE, chosen)
    if rows.empty:
        return Figure("siblings", title, absent(canvas, FILE))
    by_rank = rows.groupby([*PLACE, "rank", "effect"], sort=False, dropna=False)
    summed = by_rank[["next_reached", "next_accepted"]].sum()
    table = summed.rename(columns={"next_reached": "reached"}).reset_index()
    table = often_reached(table[table["reached"] > 0])
    if table.empty:
        return Figure("siblings", title, say("Not drawn: no step of these trees went a level below an accepted node."))
    table = table.assign(rate=table["next_accepted"] / table["reached"], rank=table["rank"] + 1)
    table = with_intervals(table, "rate", "reached").drop(columns=["effect", "next_accepted"])
    spoken = [_first_two(panel, table[table["headline"]]) for panel in canvas.panels_of(table)[:MOST_SPOKEN]]
    note = say(
        "Of the steps that accepted a node of this rank and tried its children: the share that accepted one, all "
        "depths pooled. Where it falls off with the rank, a wide tree buys single tokens, not branches. {}",
        about_intervals(table),
    )
    caption = join([*spoken, note, left_out_details(canvas, canvas.panels_of(table))])
    return drawn("siblings", title, caption, _chart(canvas, table), {"siblings": table.reset_index(drop=True)})


def _chart(canvas: Canvas, table: Any) -> Any:
    axis = alt.Axis(values=evenly(int(table["rank"].max())), format="d", grid=False)
    scale = alt.Scale(nice=False, zero=False, padding=8)
    x = alt.X("rank:Q", title="rank of the accepted node (1 = drafter's first choice)", axis=axis, scale=scale)
    y = alt.Y("rate:Q", title="next level accepted (share)", scale=alt.Scale(domain=[0, 1]))
    lines = pointed_lines(canvas, x, y, canvas.shapes_of(table[table["headline"]]), share_tips("rank", "reached"))
    return facet(alt.layer(*lines), named("siblings"), canvas.panels_of(table), height=200)


def _first_two(panel: str, table: Any) -> Text:
    rows = table[table["panel"] == panel].sort_values(["shown", "rank"], kind="stable")
    for shown, some in rows.groupby("shown", sort=False):
        ranked = some.set_index("rank")
        if {1, 2} <= set(ranked.index):
            said = "{}, {}: below a first choice the next level is accepted {} of the times, below a second one {}."
            return say(said, Name(panel), Name(str(shown)), *(percent(ranked.loc[rank], "rate") for rank in (1, 2)))
    return ()
