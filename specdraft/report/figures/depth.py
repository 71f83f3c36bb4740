"""Acceptance by depth in the tree."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import absent, left_out_details
from specdraft.report.figures.charts import evenly, facet
from specdraft.report.figures.details import (
    FEWEST_REACHED,
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
from specdraft.results.metrics import depth_rates


def depth(canvas: Canvas) -> Figure:
    """The share of the steps that accept at each depth, of those that got there."""
    chosen = chosen_details(canvas)
    title = f"Acceptance by depth{at_budgets(chosen)}"
    positions = detail_rows(canvas, "positions.csv", chosen)
    if positions.empty:
        return Figure("depth", title, absent(canvas, "positions.csv"))
    rates = depth_rates(positions, positions["all_steps"])
    kept = with_intervals(often_reached(rates), "conditional", "reached")
    few = say("Depths that fewer than {} steps reached are left out.", FEWEST_REACHED)
    headlines = kept[kept["headline"]]
    spoken = [_from_first_to_last(combination, headlines) for combination in chosen[:MOST_SPOKEN]]
    panels = canvas.panels_of(kept)
    left = left_out_details(canvas, panels)
    caption = [*spoken, few if len(kept) < len(rates) else (), say(about_intervals(kept)), left]
    columns = [*PLACE, "depth", "reached", "conditional", "low", "high"]
    table = kept[columns].rename(columns={"conditional": "rate"}).reset_index(drop=True)
    return drawn("depth", title, join(caption), _chart(canvas, table, panels), {"depth": table})


def _chart(canvas: Canvas, table: pd.DataFrame, panels: list[str]) -> Any:
    x = alt.X(
        "depth:Q",
        title="depth in the tree (tokens)",
        axis=alt.Axis(values=evenly(int(table["depth"].max())), format="d", grid=False),
        scale=alt.Scale(nice=False, zero=False, padding=8),
    )
    title = "accepted, of the steps that got there (share)"
    y = alt.Y("rate:Q", title=title, scale=alt.Scale(domain=[0, 1]))
    lines = pointed_lines(canvas, x, y, canvas.shapes_of(table[table["headline"]]), share_tips("depth", "reached"))
    return facet(alt.layer(*lines), named("depth"), panels, height=220).resolve_scale(x="independent")


def _from_first_to_last(combination: Chosen, rates: pd.DataFrame) -> Text:
    """The leader's shares at the first and at the last depth."""
    leader = combination.trees[0] if combination.trees else ""
    rows = rates[(rates["panel"] == combination.lead.panel) & (rates["tree"] == leader)].sort_values("depth")
    if rows.empty:
        return ()
    first, last = rows.iloc[0], rows.iloc[-1]
    deeper = say(
        "; at depth {} it is {}, and {} of all steps accept that far",
        int(last["depth"]),
        percent(last, "conditional"),
        f"{last['marginal']:.1%}",
    )
    return say(
        "{}, {}: of the steps that get to depth {}, {} accept there{}.",
        Name(combination.lead.panel),
        Name(first["shown"]),
        int(first["depth"]),
        percent(first, "conditional"),
        deeper if len(rows) > 1 else (),
    )
