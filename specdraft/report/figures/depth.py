"""Acceptance by depth in the tree: of the steps that got there, and of all steps."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import absent, left_out_details
from specdraft.report.figures.charts import evenly, facet, picking
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
from specdraft.results.metrics import DEPTH_RATES, depth_rates

CONDITIONAL, MARGINAL = DEPTH_RATES
STEPS = {CONDITIONAL: "reached", MARGINAL: "all_steps"}  # rate -> the steps that it is a share of


def depth(canvas: Canvas) -> Figure:
    """The share of the steps that accept at each depth: of those that got there, and of all."""
    chosen = chosen_details(canvas)
    title = f"Acceptance by depth{at_budgets(chosen)}"
    rates = rates_by_depth(canvas, chosen)
    if rates.empty:
        return Figure("depth", title, absent(canvas, "positions.csv"))
    kept = often_reached(rates)
    few = say("Depths that fewer than {} steps reached are left out.", FEWEST_REACHED)
    lines = say("Thick, with points: of the steps that got there. Thin: of all steps, which never rises.")
    headlines = kept[kept["headline"]]
    spoken = [_from_first_to_last(combination, headlines) for combination in chosen[:MOST_SPOKEN]]
    table = _long(kept)
    panels = canvas.panels_of(kept)
    left = left_out_details(canvas, panels)
    caption = [*spoken, lines, few if len(kept) < len(rates) else (), say(about_intervals(table)), left]
    return drawn("depth", title, join(caption), _chart(canvas, table, panels), {"depth": table})


def rates_by_depth(canvas: Canvas, chosen: list[Chosen]) -> pd.DataFrame:
    """Details of the chosen shapes by depth, with both rates; empty where there are none."""
    positions = detail_rows(canvas, "positions.csv", chosen)
    return positions if positions.empty else depth_rates(positions, positions["all_steps"])


def _long(rates: pd.DataFrame) -> pd.DataFrame:
    """A row for each rate: `share` says which, `steps` of how many."""
    parts = [
        with_intervals(rates, rate, steps).assign(share=rate).rename(columns={rate: "rate", steps: "steps"})
        for rate, steps in STEPS.items()
    ]
    columns = [*PLACE, "depth", "share", "steps", "rate", "low", "high"]
    return pd.concat([part[columns] for part in parts], ignore_index=True)


def _chart(canvas: Canvas, table: pd.DataFrame, panels: list[str]) -> Any:
    x = alt.X(
        "depth:Q",
        title="depth in the tree (tokens)",
        axis=alt.Axis(values=evenly(int(table["depth"].max())), format="d", grid=False),
        scale=alt.Scale(nice=False, zero=False, padding=8),
    )
    y = alt.Y("rate:Q", title="steps that accept there (share)", scale=alt.Scale(domain=[0, 1]))
    shapes = canvas.shapes_of(table[table["headline"]])
    lines = [
        line.transform_filter(alt.datum.share == CONDITIONAL)
        for line in pointed_lines(canvas, x, y, shapes, share_tips("depth", "steps"))
    ]
    layers = [*_thin_lines(canvas, x, y, shapes), *lines]
    return facet(alt.layer(*layers), named("depth"), panels, height=220).resolve_scale(x="independent")


def _thin_lines(canvas: Canvas, x: alt.X, y: alt.Y, shapes: list[str]) -> list[Any]:
    """Of all steps: a thin line, and bars from `low` to `high`."""
    _, strong = picking()
    base = alt.Chart().transform_filter(alt.datum.share == MARGINAL)
    colour = canvas.scales.colour(shapes)
    low = y.copy()
    low["shorthand"] = "low:Q"
    bars = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=0.8)
    line = base.mark_line(strokeWidth=0.9).encode(
        x=x, y=y, color=colour, strokeDash=canvas.scales.dash(shapes), opacity=strong
    )
    tooltip = share_tips("depth", "steps")
    points = base.mark_point(filled=False, size=14, strokeWidth=0.9, opacity=1)
    points = points.encode(x=x, y=y, color=colour, opacity=strong, tooltip=tooltip)
    return [bars.encode(x=x, y=low, y2=alt.Y2("high:Q"), color=colour, opacity=strong), line, points]


def _from_first_to_last(combination: Chosen, rates: pd.DataFrame) -> Text:
    """The leader's shares at the first and at the last depth."""
    leader = combination.trees[0] if combination.trees else ""
    rows = rates[(rates["panel"] == combination.lead.panel) & (rates["tree"] == leader)].sort_values("depth")
    if rows.empty:
        return ()
    shares = {rate: with_intervals(rows, rate, steps) for rate, steps in STEPS.items()}
    first, last = (shares[CONDITIONAL].iloc[place] for place in (0, -1))
    deeper = say(
        "; at depth {} it is {}, and {} of all steps accept that far",
        int(last["depth"]),
        percent(last, CONDITIONAL),
        percent(shares[MARGINAL].iloc[-1], MARGINAL),
    )
    return say(
        "{}, {}: of the steps that get to depth {}, {} accept there{}.",
        Name(combination.lead.panel),
        Name(first["shown"]),
        int(first["depth"]),
        percent(first, CONDITIONAL),
        deeper if len(rows) > 1 else (),
    )
