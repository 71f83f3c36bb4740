"""Acceptance by a child's rank among its siblings."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import absent, left_out_details
from specdraft.report.figures.charts import facet
from specdraft.report.figures.details import (
    PLACE,
    Chosen,
    at_budgets,
    chosen_details,
    detail_rows,
    often_reached,
    pointed_lines,
    share_tips,
)
from specdraft.report.figures.shares import about_intervals, percent, with_intervals
from specdraft.report.words import Name, Text, join, say

WIDEST = "wide"  # the shape that shows the most ranks


def ranks(canvas: Canvas) -> Figure:
    """How often a child of each rank is accepted, given that its parent was."""
    chosen = chosen_details(canvas)
    title = f"Acceptance by child rank{at_budgets(chosen)}"
    nodes = detail_rows(canvas, "nodes.csv", [_with_the_widest(canvas, combination) for combination in chosen])
    if nodes.empty:
        return Figure("rank", title, absent(canvas, "nodes.csv"))
    last_ranks = pd.to_numeric(nodes["rank_path"].str.rsplit("/", n=1).str[-1], errors="coerce")
    if last_ranks.isna().any():
        return Figure("rank", title, say("Not drawn: nodes.csv has rank paths that cannot be read."))
    table = _rates(nodes.assign(rank=last_ranks + 1))
    spoken = [_first_ranks(panel, table[table["headline"]]) for panel in canvas.panels_of(table)[:MOST_SPOKEN]]
    note = say(
        "All depths of a tree pooled. Under sampling a rank is the order in which children are drawn. {}",
        about_intervals(table),
    )
    caption = join([*spoken, note, left_out_details(canvas, canvas.panels_of(table))])
    return drawn("rank", title, caption, _chart(canvas, table), {"rank": table.reset_index(drop=True)})


def _with_the_widest(canvas: Canvas, combination: Chosen) -> Chosen:
    lead, trees = combination
    measured = canvas.at(lead.panel, lead.budget)["tree"]
    wide = [tree for tree in measured if tree == WIDEST and tree in canvas.trees and tree not in trees]
    return Chosen(lead, [*trees, *wide])


def _rates(nodes: pd.DataFrame) -> pd.DataFrame:
    """A row per panel, shape and rank, with `rate`: accepted over reached, and its interval."""
    by_rank = nodes.groupby([*PLACE, "rank", "effect"], sort=False, dropna=False)
    kept = often_reached(by_rank[["reached", "accepted"]].sum().reset_index())
    rates = kept.assign(rate=kept["accepted"] / kept["reached"].where(kept["reached"] > 0))
    return with_intervals(rates, "rate", "reached").drop(columns=["accepted", "effect"])


def _chart(canvas: Canvas, table: pd.DataFrame) -> Any:
    x = alt.X(
        "rank:Q",
        title="child rank (1 = drafter's first choice)",
        axis=alt.Axis(values=_doubled(int(table["rank"].max())), format="d", grid=False),
        scale=alt.Scale(type="log", base=2, nice=False, padding=8),
    )
    y = alt.Y("rate:Q", title="accepted if its parent was (share, √ axis)", scale=alt.Scale(type="sqrt", domainMin=0))
    lines = pointed_lines(canvas, x, y, canvas.shapes_of(table[table["headline"]]), share_tips("rank", "reached"))
    return facet(alt.layer(*lines), named("rank"), canvas.panels_of(table), height=220)


def _first_ranks(panel: str, table: pd.DataFrame) -> Text:
    """The rates of the first ranks and of the last, of the shape with the most ranks."""
    rows = table[table["panel"] == panel]
    widest = rows.sort_values("rank", kind="stable")["shown"].iloc[-1]
    rows = rows[rows["shown"] == widest].sort_values("rank")
    if len(rows) < 2:
        return say("{}: the trees have only first-ranked children.", Name(panel))
    first, second, last = rows.iloc[0], rows.iloc[1], rows.iloc[-1]
    return say(
        "{}, {}: rank {} is accepted {} of the times that its parent was, rank {} {}{}.",
        Name(panel),
        Name(widest),
        int(first["rank"]),
        percent(first, "rate"),
        int(second["rank"]),
        percent(second, "rate"),
        f", rank {int(last['rank'])} {last['rate']:.2%}" if len(rows) > 2 else "",
    )


def _doubled(most: int) -> list[int]:
    """Ranks to name: 1, 2, 4 and so on."""
    return [1 << power for power in range(most.bit_length())]
