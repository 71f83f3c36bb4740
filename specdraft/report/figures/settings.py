"""Rules, temperatures and other settings side by side."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.cross_fit import best_row
from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_DETAIL_PANELS, MOST_DETAIL_SHAPES, Canvas
from specdraft.report.figures.charts import METRIC_TITLES, tips, width
from specdraft.report.findings import fair
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Text, join, names, plural, say

TITLE = "Rules, temperatures and other settings side by side"
MOST_SETTINGS = 24
COLUMNS = ["pair", "setting", "shown", "block_efficiency", "block_efficiency_lo", "block_efficiency_hi"]


def settings(canvas: Canvas) -> Figure | None:
    """Block efficiency under every setting at one budget; None where only pair, shape and budget were swept."""
    study = canvas.findings.study
    if len(study.panels) == len(study.summary["pair"].unique()):
        return None
    budget = _budget(canvas.rows)
    every = list(dict.fromkeys(canvas.rows["pair"]))
    pairs = every[:MOST_DETAIL_PANELS]
    rows = _rows(canvas, budget, pairs)
    all_settings = list(dict.fromkeys(rows["setting"]))
    kept = all_settings[:MOST_SETTINGS]
    rows = rows[rows["setting"].isin(kept)].assign(pair=lambda table: table["pair"].map(visible))
    more, pairs_left = all_settings[MOST_SETTINGS:], every[MOST_DETAIL_PANELS:]
    caption = join(
        [
            *(_extremes(canvas, pair, rows) for pair in dict.fromkeys(rows["pair"])),
            say("The files hold no paired comparison across settings, so compare their intervals only."),
            say("Only in the table: {}.", names([*map(visible, pairs_left), *more])) if pairs_left or more else (),
            say("Shapes that are drawn: {}.", names(dict.fromkeys(rows["shown"]))),
        ]
    )
    chart = _chart(canvas, rows, kept, [visible(pair) for pair in pairs], budget)
    return drawn("settings", TITLE, caption, chart, {"settings": rows[COLUMNS].reset_index(drop=True)})


def _budget(rows: pd.DataFrame) -> int:
    """The budget that the most settings have, the largest of these."""
    panels = rows.groupby("budget")["panel"].nunique()
    return int(max(panels.index, key=lambda budget: (panels[budget], budget)))


def _rows(canvas: Canvas, budget: int, pairs: list[str]) -> pd.DataFrame:
    """The rows of the shapes that the most settings have, with `setting`: the panel without its pair."""
    rows = canvas.rows
    rows = rows[(rows["budget"] == budget) & rows["pair"].isin(pairs) & rows["tree"].isin(canvas.trees)]
    often = fair(rows).groupby("tree")["panel"].count().sort_values(ascending=False, kind="stable")
    rows = rows[rows["tree"].isin(list(often.index[: MOST_DETAIL_SHAPES + 1]))]
    return rows.assign(setting=[panel.partition(" · ")[2] or panel for panel in rows["panel"]])


def _chart(canvas: Canvas, rows: pd.DataFrame, settings: list[str], pairs: list[str], budget: int) -> Any:
    shapes = canvas.shapes_of(rows)
    y = alt.Y("setting:N", title="setting", sort=settings)
    offset = alt.YOffset("shown:N", sort=shapes)
    title = f"{METRIC_TITLES['block_efficiency']}, at {plural(budget, 'node')}"
    x = alt.X("block_efficiency:Q", title=title, scale=alt.Scale(zero=False))
    colour = canvas.scales.colour(shapes)
    low, high = alt.X("block_efficiency_lo:Q"), alt.X2("block_efficiency_hi:Q")
    bars = alt.Chart().mark_rule(strokeWidth=2).encode(y=y, yOffset=offset, x=low, x2=high, color=colour)
    points = alt.Chart().mark_point(filled=True, size=46, opacity=1)
    points = points.encode(
        y=y, yOffset=offset, x=x, color=colour, shape=canvas.scales.marker(shapes), tooltip=tips(COLUMNS)
    )
    layers = [*([bars] if rows["block_efficiency_lo"].notna().any() else []), points]
    return (
        alt.layer(*layers, data=named("settings"))
        .properties(width=width(len(pairs)), height=alt.Step(max(26, 11 * len(shapes)), **{"for": "position"}))
        .facet(facet=alt.Facet("pair:N", title=None, sort=pairs), columns=3)
    )


def _extremes(canvas: Canvas, pair: str, rows: pd.DataFrame) -> Text:
    """The settings in which a pair's first shape gets the most and the fewest tokens."""
    rows = rows[rows["pair"] == pair]
    tree = rows["shown"].iloc[0]
    rows = rows[rows["shown"] == tree]
    if len(rows) < 2:
        return ()
    (lowest, low), (highest, high) = (
        best_row(canvas.findings.halves, rows, "block_efficiency", lowest=end) for end in (True, False)
    )
    apart = "their intervals do not overlap" if high.low > low.high else "their intervals overlap"
    return say(
        "{}, {}: highest under {} ({}), lowest under {} ({}); {}.",
        Name(pair),
        Name(tree),
        Name(highest["setting"]),
        high,
        Name(lowest["setting"]),
        low,
        apart if low.known and high.known else "no intervals",
    )
