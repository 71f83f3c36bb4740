"""Metrics of every shape over the node budget; at a single budget a line per shape."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import left_out
from specdraft.report.figures.charts import METRIC_TITLES, dashed, facet, interval_tips, opacity, picking, ticks
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Text, join, plural, say
from specdraft.results.intervals import Interval

CURVES = ["panel", "shown", "budget", "nodes", "lonely"]


def acceptance_length(canvas: Canvas) -> Figure:
    """Accepted tokens per step."""
    title = "Accepted draft tokens per step, by node budget"
    return metric_figure(canvas, "acceptance_length", title, _growth(canvas, "acceptance_length"))


def acceptance_rate(canvas: Canvas) -> Figure:
    """Accepted tokens per drafted one."""
    title = "Share of draft tokens that are accepted, by node budget"
    return metric_figure(canvas, "acceptance_rate", title, _growth(canvas, "acceptance_rate"))


def metric_figure(
    canvas: Canvas, metric: str, title: str, caption: Text, plain: bool = False, single: bool | None = None
) -> Figure:
    """A metric of every drawn shape.

    Args:
        canvas: what is drawn.
        metric: a ratio of `summary.csv`.
        title: of the figure.
        caption: what is to be seen.
        plain: plain decoding has 1: there is a line for it.
        single: there is one budget; None: as the study has it.
    """
    name, curves = metric.replace("_", "-"), canvas.curves[canvas.curves[metric].notna()]
    if curves.empty:
        return Figure(name, title, say("Not drawn: summary.csv has no {}.", metric))
    bounded = curves[f"{metric}_lo"].notna().any()
    about_bounds = (
        "Shaded or with bars: 95 % intervals over prompts." if bounded else "No intervals: none are recorded."
    )
    layers = _dots if (canvas.single_budget if single is None else single) else _lines
    chart = layers(canvas, metric, curves, plain)
    columns = [*CURVES, metric, f"{metric}_lo", f"{metric}_hi"]
    return drawn(
        name, title, join([caption, left_out(canvas), say(about_bounds)]), chart, {"curves": canvas.curves[columns]}
    )


def _base(metric: str) -> Any:
    return alt.Chart().transform_filter(f"isValid(datum['{metric}'])")


def _lines(canvas: Canvas, metric: str, curves: pd.DataFrame, plain: bool) -> Any:
    shapes, base = canvas.shapes_of(curves), _base(metric)
    pick, strong = picking()
    x = budget_axis(curves)
    y = alt.Y(f"{metric}:Q", title=METRIC_TITLES[metric], scale=alt.Scale(zero=metric == "acceptance_rate"))
    colour = canvas.scales.colour(shapes)
    faint = opacity(alt.condition(pick, alt.value(0.13), alt.value(0.01)))
    joined, single = base.transform_filter("!datum.lonely"), base.transform_filter("datum.lonely")
    ends = {"y": alt.Y(f"{metric}_lo:Q"), "y2": alt.Y2(f"{metric}_hi:Q")}
    band = joined.mark_area().encode(x=x, **ends, color=colour, opacity=faint)
    bars = single.mark_rule(strokeWidth=1.5).encode(x=x, **ends, color=colour, opacity=strong)
    line = joined.mark_line(strokeWidth=1.8)
    line = line.encode(x=x, y=y, color=colour, strokeDash=canvas.scales.dash(shapes), opacity=strong)
    points = base.mark_point(filled=True, size=46, opacity=1).encode(
        x=x, y=y, color=colour, shape=canvas.scales.marker(shapes), opacity=strong, tooltip=curve_tips(metric)
    )
    bounded = curves[f"{metric}_lo"].notna()  # a layer without a row makes Vega complain
    layers = [
        *([dashed(base).encode(y=alt.YDatum(1))] if plain else []),
        *([band] if (bounded & ~curves["lonely"]).any() else []),
        *([bars] if (bounded & curves["lonely"]).any() else []),
        *([line] if not curves["lonely"].all() else []),
        points.add_params(pick),
    ]
    return facet(alt.layer(*layers), named("curves"), canvas.panels_of(curves), height=260)


def budget_axis(curves: pd.DataFrame, title_padding: int = 4) -> alt.X:
    """Node budgets on a logarithmic axis; those are named that leave room for each other."""
    return alt.X(
        "budget:Q",
        title="node budget (draft nodes)",
        scale=alt.Scale(type="log", base=2, nice=False, padding=8),
        axis=alt.Axis(
            values=ticks({int(budget) for budget in curves["competes"]}),
            format="d",
            grid=False,
            titlePadding=title_padding,
        ),
    )


def curve_tips(metric: str) -> list[alt.Tooltip]:
    """What a point of a curve says."""
    return [
        alt.Tooltip("panel:N", title="setting"),
        alt.Tooltip("shown:N", title="shape"),
        alt.Tooltip("budget:Q", title="node budget"),
        alt.Tooltip("nodes:Q", title="nodes"),
        *interval_tips(metric),
    ]


def _dots(canvas: Canvas, metric: str, curves: pd.DataFrame, plain: bool) -> Any:
    """A single budget: one line per shape, no axis of budgets."""
    shapes = [visible(tree) for tree in dict.fromkeys(curves.sort_values(metric, ascending=False)["tree"])]
    base = _base(metric)
    y = alt.Y("shown:N", title="shape", sort=shapes)
    title = f"{METRIC_TITLES[metric]}, at {plural(int(curves['budget'].iloc[0]), 'node')}"
    x = alt.X(f"{metric}:Q", title=title, scale=alt.Scale(zero=False))
    there = canvas.shapes_of(curves)
    colour = alt.Color("shown:N", scale=canvas.scales.scale(there), legend=None)
    marker = alt.Shape("shown:N", scale=canvas.scales.scale(there, 1), legend=None)
    bars = base.mark_rule(strokeWidth=2)
    bars = bars.encode(y=y, x=alt.X(f"{metric}_lo:Q"), x2=alt.X2(f"{metric}_hi:Q"), color=colour)
    points = base.mark_point(filled=True, size=70, opacity=1)
    points = points.encode(y=y, x=x, color=colour, shape=marker, tooltip=curve_tips(metric))
    layers = [
        *([dashed(base).encode(x=alt.datum(1))] if plain else []),
        *([bars] if curves[f"{metric}_lo"].notna().any() else []),
        points,
    ]
    height = max(60, 22 * len(shapes))
    return facet(alt.layer(*layers), named("curves"), canvas.panels_of(curves), height=height)


def _growth(canvas: Canvas, metric: str) -> Text:
    """From the smallest to the largest budget, for the headline's leader; a trend only where intervals are
    apart."""
    headlines = canvas.findings.headlines
    panels = [panel for panel in canvas.panels if panel in headlines][:MOST_SPOKEN]
    sentences = [_growth_of(canvas, panel, headlines[panel].tree, metric) for panel in panels]
    return join(sentences) or say("Each shape at the one budget that it was measured at.")


def _growth_of(canvas: Canvas, panel: str, tree: str, metric: str) -> Text:
    rows = canvas.rows[(canvas.rows["panel"] == panel) & (canvas.rows["tree"] == tree) & canvas.rows[metric].notna()]
    if len(rows) < 2:
        return ()
    rows = rows.sort_values("budget")
    smallest, largest = rows.iloc[0], rows.iloc[-1]
    first, last = Interval.of(smallest, metric), Interval.of(largest, metric)
    return say(
        "{}, {}: from {} at {} to {} at {}{}.",
        Name(panel),
        Name(visible(tree)),
        first,
        plural(int(smallest["budget"]), "node"),
        last,
        int(largest["budget"]),
        _trend(first, last),
    )


def _trend(first: Interval, last: Interval) -> str:
    if not (first.known and last.known):
        return ""
    if last.low > first.high:
        return ", a rise (the intervals are apart)"
    return ", a fall (the intervals are apart)" if last.high < first.low else " (the intervals overlap)"
