"""Acceptance by depth in the tree."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import absent, left_out_details
from specdraft.report.figures.charts import width
from specdraft.report.figures.details import (
    FEWEST_REACHED,
    Chosen,
    at_budgets,
    chosen_details,
    detail_rows,
    often_reached,
    pointed_lines,
)
from specdraft.report.words import Name, Text, join, say
from specdraft.results.metrics import depth_rates

KINDS = {"conditional": "given that the step got there", "marginal": "of all steps"}


def depth(canvas: Canvas) -> Figure:
    """The share of steps that accept at each depth: of those that got there, and of all."""
    chosen = chosen_details(canvas)
    title = f"Acceptance by depth{at_budgets(chosen)}"
    positions = detail_rows(canvas, "positions.csv", chosen)
    if positions.empty:
        return Figure("depth", title, absent(canvas, "positions.csv"))
    rates = depth_rates(positions, positions["all_steps"])
    kept = often_reached(rates)
    table = kept.melt(["panel", "shown", "depth", "reached"], list(KINDS), "kind", "rate")
    table["kind"] = table["kind"].map(lambda kind: f"{kind}: {KINDS[kind]}")
    few = say("Depths that fewer than {} steps reached are left out.", FEWEST_REACHED)
    note = say("Pooled over prompts; the files record no intervals for depths.")
    spoken = [_from_first_to_last(combination, kept) for combination in chosen[:MOST_SPOKEN]]
    caption = [*spoken, few if len(kept) < len(rates) else (), note, left_out_details(canvas)]
    return drawn("depth", title, join(caption), _chart(canvas, kept, table), {"depth": table})


def _chart(canvas: Canvas, kept: pd.DataFrame, table: pd.DataFrame) -> Any:
    x = alt.X(
        "depth:Q",
        title="depth in the tree (tokens)",
        axis=alt.Axis(values=_evenly(int(kept["depth"].max())), format="d", grid=False),
        scale=alt.Scale(nice=False, padding=8),
    )
    y = alt.Y("rate:Q", title="steps that accept (share)", scale=alt.Scale(domain=[0, 1]))
    tooltip = ["shown:N", "depth:Q", alt.Tooltip("rate:Q", format=".3f"), "reached:Q"]
    lines = pointed_lines(canvas, x, y, canvas.shapes_of(kept), tooltip)
    panels = canvas.panels_of(table)
    header = alt.Header(labelOrient="top", labelAnchor="start", labelFontWeight="normal")
    return (
        alt.layer(*lines, data=named("depth"))
        .properties(width=width(len(panels)), height=170)
        .facet(row=alt.Row("kind:N", title=None, header=header), column=alt.Column("panel:N", title=None, sort=panels))
        .resolve_scale(x="independent")
    )


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
        f"{last['conditional']:.0%}",
        f"{last['marginal']:.1%}",
    )
    return say(
        "{}, {}: of the steps that get to depth {}, {} accept there{}.",
        Name(combination.lead.panel),
        Name(first["shown"]),
        int(first["depth"]),
        f"{first['conditional']:.0%}",
        deeper if len(rows) > 1 else (),
    )


def _evenly(deepest: int) -> list[int]:
    """Depths to name."""
    if deepest <= 10:
        return list(range(1, deepest + 1))
    return [1, 3, 5, 7, 10, *range(15, 40, 5), *range(40, deepest + 1, 20)]
