"""Tokens per step by category of prompts."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import absent, left_out_details
from specdraft.report.figures.charts import METRIC_TITLES, facet, interval_tips
from specdraft.report.figures.details import PLACE, Chosen, at_budgets, chosen_details, detail_rows
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Text, join, names, say
from specdraft.results.intervals import FEWEST_PROMPTS, number

FILE = "by_category.csv"
METRIC = "block_efficiency"
MOST_CATEGORIES = 16


def categories(canvas: Canvas) -> Figure | None:
    """A row per category, a point with its interval per shape; None without the file, or with a single category."""
    table = canvas.findings.study.details.get(FILE)
    if table is None or table["category"].nunique() < 2:
        return None
    chosen = chosen_details(canvas)
    title = f"Tokens per step by category of prompts{at_budgets(chosen)}"
    rows = detail_rows(canvas, FILE, chosen)
    rows = rows[rows[METRIC].notna()] if len(rows) else rows
    if rows.empty:
        return Figure("categories", title, absent(canvas, FILE))
    rows = rows.assign(category=rows["category"].map(visible))
    order = list(rows.groupby("category")[METRIC].mean().sort_values(ascending=False, kind="stable").index)
    kept = rows[rows["category"].isin(order[:MOST_CATEGORIES])].reset_index(drop=True)
    bounded = kept[f"{METRIC}_lo"].notna()
    said = [
        *(_first_in(one, kept[kept["headline"]]) for one in chosen[:MOST_SPOKEN]),
        say("Bars: 95 % intervals over the prompts of a category.") if bounded.any() else (),
        say("Categories with fewer than {} prompts have no interval.", FEWEST_PROMPTS) if not bounded.all() else (),
        say("Not drawn: {}.", names(order[MOST_CATEGORIES:])) if len(order) > MOST_CATEGORIES else (),
        left_out_details(canvas, canvas.panels_of(kept)),
    ]
    columns = [*PLACE, "category", METRIC, f"{METRIC}_lo", f"{METRIC}_hi"]
    chart = _chart(canvas, kept, order[:MOST_CATEGORIES])
    return drawn("categories", title, join(said), chart, {"categories": kept[columns]})


def _chart(canvas: Canvas, rows: pd.DataFrame, order: list[str]) -> Any:
    shapes = canvas.shapes_of(rows[rows["headline"]])
    y = alt.Y("category:N", title=None, sort=order)
    offset = alt.YOffset("shown:N", sort=shapes)
    x = alt.X(f"{METRIC}:Q", title=METRIC_TITLES[METRIC], scale=alt.Scale(zero=False))
    colour, marker = canvas.scales.colour(shapes), canvas.scales.marker(shapes)
    bars = alt.Chart().mark_rule(strokeWidth=2)
    bars = bars.encode(y=y, yOffset=offset, x=f"{METRIC}_lo:Q", x2=f"{METRIC}_hi:Q", color=colour)
    points = alt.Chart().mark_point(filled=True, size=46, opacity=1)
    tooltip = [alt.Tooltip("shown:N", title="shape"), "category:N", *interval_tips(METRIC)]
    points = points.encode(y=y, yOffset=offset, x=x, color=colour, shape=marker, tooltip=tooltip)
    layers = [*([bars] if rows[f"{METRIC}_lo"].notna().any() else []), points]
    height = len(order) * max(26, 10 * len(shapes))
    return facet(alt.layer(*layers), named("categories"), canvas.panels_of(rows), height)


def _first_in(chosen: Chosen, rows: pd.DataFrame) -> Text:
    """In how many categories the leader is the first of the drawn ones, and what it ranges over."""
    rows = rows[(rows["panel"] == chosen.lead.panel) & rows["tree"].isin(chosen.trees)]
    own = rows[rows["tree"] == chosen.lead.tree]
    if own.empty:
        return ()
    most = rows.groupby("category")[METRIC].max()
    first = int((own[METRIC].to_numpy() >= most[own["category"]].to_numpy()).sum())
    return say(
        "{}: {} is first of the shapes drawn in {} of {} categories, with {} to {} tokens per step.",
        Name(chosen.lead.panel),
        Name(visible(chosen.lead.tree)),
        first,
        len(own),
        number(own[METRIC].min()),
        number(own[METRIC].max()),
    )
