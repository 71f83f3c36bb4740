"""The figure that opens a report: tokens per step over the node budget, the best shapes named at their lines, and below
them which shape is best at each budget."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import log2
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import CHAIN, Canvas
from specdraft.report.figures.captions import leaders, left_out
from specdraft.report.figures.charts import METRIC_TITLES, dashed, filled_where, opacity
from specdraft.report.figures.metrics import CURVES, budget_axis, curve_tips, metric_figure
from specdraft.report.leads import ALONE, CLEAR, EQUAL, Lead
from specdraft.report.study_files import visible
from specdraft.report.theme import GREY
from specdraft.report.words import Text, join, names, say
from specdraft.trees.shapes import is_reference

TITLE = "Tokens per pass of the target, by node budget"
METRIC = "block_efficiency"
MOST_NAMED = 5  # shapes with a colour
HEIGHT = 250
WIDTHS = {1: 600, 2: 340}
WIDTH = 190  # of one of more panels
SPACE = 13  # pixels between two names
ROW = HEIGHT + 36  # pixels from the top to the row of the best
LANES = 3  # rows of names below it
LETTER = 5.6  # pixels
LINE, END, BEST = "line", "end", "best"  # parts of the figure


def block_efficiency(canvas: Canvas) -> Figure:
    """Tokens per step; at a single budget a line per shape."""
    if canvas.single_budget:
        return metric_figure(canvas, METRIC, TITLE, leaders(canvas), plain=True)
    curves = canvas.curves
    chosen, top = closest_to_the_best(canvas), float(canvas.curves[[METRIC, f"{METRIC}_hi"]].max().max())
    named_shapes = [*chosen, *(visible(tree) for tree in canvas.trees if is_reference(tree))]
    best = _best(canvas)
    lines = curves[[*CURVES, METRIC, f"{METRIC}_lo", f"{METRIC}_hi"]].assign(part=LINE)
    parts = [lines, _ends(curves, named_shapes, top).assign(part=END), best.assign(part=BEST)]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    caption = join([leaders(canvas), _key(canvas, curves, named_shapes, best), left_out(canvas)])
    return drawn(METRIC.replace("_", "-"), TITLE, caption, _chart(canvas, named_shapes, best, top), {"opening": table})


def closest_to_the_best(canvas: Canvas) -> list[str]:
    """The names of at most `MOST_NAMED` shapes that come closest to the best at every budget, chain among them."""
    rows = canvas.curves[~canvas.curves["tree"].map(is_reference).astype(bool)]
    share = rows[METRIC] / rows.groupby(["panel", "competes"])[METRIC].transform("max")
    close = share.groupby(rows["tree"]).mean().sort_values(ascending=False, kind="stable")
    order = sorted(close.index, key=lambda tree: tree != CHAIN)[:1] if CHAIN in close.index else []
    kept = [*order, *(tree for tree in close.index if tree not in order)][:MOST_NAMED]
    return [visible(tree) for tree in close.index if tree in kept]


def _ends(curves: pd.DataFrame, shapes: list[str], top: float) -> pd.DataFrame:
    """Where each line's name stands: at its last point, moved up or down where names would touch."""
    last = curves[curves["shown"].isin(shapes)].sort_values("budget").groupby(["panel", "shown"], sort=False).tail(1)
    table = last[["panel", "shown", "budget", METRIC]].rename(columns={METRIC: "value"})
    table["label"] = [f"{shown} {value:.2f}" for shown, value in zip(last["shown"], last[METRIC], strict=True)]
    gap = SPACE * (top - 1) / HEIGHT
    places: dict[Any, float] = {}
    for _, rows in table.groupby("panel", sort=False):
        at_the_end = rows[rows["budget"] * 1.5 > rows["budget"].max()].sort_values("value")
        places |= dict(zip(at_the_end.index, apart(at_the_end["value"], gap), strict=True))
    return table.assign(place=[places.get(row, value) for row, value in table["value"].items()])


def apart(values: Iterable[float], gap: float) -> list[float]:
    """Ascending values moved as little as needed so that no two are closer than `gap`: those that touch are spread
    evenly round their mean."""
    groups: list[list[float]] = []  # of touching ones: their sum, their number
    for value in values:
        groups.append([value, 1])
        while len(groups) > 1 and _foot(groups[-1], gap) < _foot(groups[-2], gap) + groups[-2][1] * gap:
            total, count = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += count
    return [_foot(group, gap) + gap * place for group in groups for place in range(int(group[1]))]


def _foot(group: list[float], gap: float) -> float:
    total, count = group
    return total / count - gap * (count - 1) / 2


def _best(canvas: Canvas) -> pd.DataFrame:
    """A row per panel and budget with what is best there; a name stands once for budgets that follow each other."""
    rows = []
    for panel in canvas.panels:
        heads = [lead for lead in canvas.findings.leads if lead.panel == panel and lead.verdict != ALONE]
        runs = [(name, list(run)) for name, run in groupby(heads, key=_said)]
        lanes = lanes_of([(name, run[0].budget, run[-1].budget) for name, run in runs], canvas)
        for (name, budgets), lane in zip(runs, lanes, strict=True):
            first, last = budgets[0].budget, budgets[-1].budget
            rows += [
                {
                    "panel": panel,
                    "budget": lead.budget,
                    "shown": visible(lead.tree),
                    "sure": "all equal" if lead.verdict == EQUAL else "clear" if lead.verdict == CLEAR else "open",
                    "first": first,
                    "last": last,
                    "middle": (first * last) ** 0.5 if lead is budgets[0] and lane is not None else None,
                    "name": name,
                    "lane": lane,
                }
                for lead in budgets
            ]
    return pd.DataFrame(rows)


def lanes_of(runs: Sequence[tuple[str, float, float]], canvas: Canvas) -> list[int | None]:
    """On which line the name of each run of budgets stands, the long ones first: the first one with room for it; None
    where there is none, as its symbols say what it is."""
    lanes: list[int | None] = [None] * len(runs)
    taken: list[list[tuple[float, float]]] = [[] for _ in range(LANES)]
    for place in sorted(range(len(runs)), key=lambda n: runs[n][1] / runs[n][2]):
        name, first, last = runs[place]
        middle, half = pixel(canvas, (first * last) ** 0.5), (len(name) + 1) * LETTER / 2
        left, right = middle - half, middle + half
        free = (lane for lane in range(LANES) if all(right <= start or end <= left for start, end in taken[lane]))
        if (lane := next(free, None)) is not None:
            taken[lane].append((left, right))
            lanes[place] = lane
    return lanes


def _lanes(best: pd.DataFrame) -> int:
    return 1 + int(best["lane"].max())


def _said(lead: Lead) -> str:
    if lead.verdict == EQUAL:
        return "all equal"
    more = len(lead.trees) - 1
    return visible(lead.tree) + (f" and {more} equal" if more else "")


def pixel(canvas: Canvas, budget: float) -> float:
    """Where a budget stands on the axis, in pixels."""
    low, high = (float(end) for end in (canvas.curves["budget"].min(), canvas.curves["budget"].max()))
    return _width(canvas) * log2(budget / low) / log2(high / low)


def _width(canvas: Canvas) -> int:
    return WIDTHS.get(len(canvas.panels), WIDTH)


def _chart(canvas: Canvas, shapes: list[str], best: pd.DataFrame, top: float) -> Any:
    x = budget_axis(canvas.curves, title_padding=26 + SPACE * _lanes(best) if len(best) else 4)
    layers = [
        *_lines(canvas, shapes, x, top),
        *_names(canvas, shapes, x, top),
        *(_ribbon(canvas, shapes, x, _lanes(best)) if len(best) else []),
    ]
    chart = alt.layer(*layers).properties(width=_width(canvas), height=HEIGHT)
    chart.data = named("opening")
    panels = alt.Facet("panel:N", title=None, sort=canvas.panels)
    return chart.facet(facet=panels, columns=3).resolve_axis(x="independent")


def _part(part: str, *conditions: str) -> Any:
    return alt.Chart().transform_filter(" && ".join([f"datum.part === '{part}'", *conditions]))


def _scale(canvas: Canvas, shapes: list[str], part: int = 0) -> alt.Scale:
    """Of what is named and of what is best anywhere: one domain for all parts of the figure."""
    return canvas.scales.scale(list(dict.fromkeys([*shapes, *canvas.leading])), part)


def _marks(canvas: Canvas, shapes: list[str]) -> dict[str, Any]:
    """Colour, symbol and dash."""
    channels = {"color": alt.Color, "shape": alt.Shape, "strokeDash": alt.StrokeDash}
    return {
        name: of("shown:N", scale=_scale(canvas, shapes, part), legend=None)
        for part, (name, of) in enumerate(channels.items())
    }


def _up(field: str, top: float) -> alt.Y:
    """The vertical axis, from just below plain decoding."""
    return alt.Y(f"{field}:Q", title=METRIC_TITLES[METRIC], scale=alt.Scale(domain=[0.9, top], nice=False, zero=False))


def _lines(canvas: Canvas, shapes: list[str], x: alt.X, top: float) -> list[Any]:
    """Plain decoding, the other shapes in grey, intervals and lines of the named ones."""
    is_named = f"indexof({json.dumps(shapes)}, datum.shown) >= 0"
    y, marks = _up(METRIC, top), _marks(canvas, shapes)
    colour = marks["color"]
    grey = {"x": x, "y": y, "detail": alt.Detail("shown:N"), "color": alt.ColorValue(GREY)}
    ends = {"x": x, "y": _up(f"{METRIC}_lo", top), "y2": alt.Y2(f"{METRIC}_hi:Q"), "color": colour}
    tooltip = curve_tips(METRIC)
    joined, lonely = _part(LINE, is_named, "!datum.lonely"), _part(LINE, is_named, "datum.lonely")
    others = _part(LINE, f"!({is_named})")
    curves = canvas.curves
    bounded, chosen = curves[f"{METRIC}_lo"].notna(), curves["shown"].isin(shapes)
    layers = [  # each with whether it has a row: Vega complains of layers without one
        (True, dashed(_part(LINE)).encode(y=alt.YDatum(1))),
        ((~chosen & ~curves["lonely"]).any(), others.mark_line(strokeWidth=1, opacity=0.6).encode(**grey)),
        ((~chosen).any(), others.mark_circle(size=14, opacity=0.7).encode(**grey, tooltip=tooltip)),
        ((bounded & chosen & ~curves["lonely"]).any(), joined.mark_area(opacity=0.13).encode(**ends)),
        ((bounded & chosen & curves["lonely"]).any(), lonely.mark_rule(strokeWidth=1.5).encode(**ends)),
        (
            (chosen & ~curves["lonely"]).any(),
            joined.mark_line(strokeWidth=2.2).encode(x=x, y=y, color=colour, strokeDash=marks["strokeDash"]),
        ),
    ]
    points = _part(LINE, is_named).mark_point(filled=True, size=52, opacity=1)
    points = points.encode(x=x, y=y, color=colour, shape=marks["shape"], tooltip=tooltip)
    return [*(layer for there, layer in layers if there), points]


def _names(canvas: Canvas, shapes: list[str], x: alt.X, top: float) -> list[Any]:
    """At the lines' ends, and what the dashed line is."""
    at_end = _part(END).mark_text(align="left", dx=9, fontSize=10.5, fontWeight="bold", baseline="middle")
    first = _part(END).transform_aggregate(budget="max(budget)", groupby=["panel"])
    plain = first.mark_text(align="right", dx=-4, dy=-6, fontSize=10.5, color=GREY, text="plain decoding: 1")
    return [
        at_end.encode(x=x, y=_up("place", top), text=alt.Text("label:N"), color=_marks(canvas, shapes)["color"]),
        plain.encode(x=x, y=alt.YDatum(1)),
    ]


def _ribbon(canvas: Canvas, shapes: list[str], x: alt.X, lanes: int) -> list[Any]:
    """The best of each budget, below the axis: filled where its lead is clear."""
    marks, row = _marks(canvas, shapes), alt.value(ROW)
    tips = [("shown", "best"), ("budget", "node budget"), ("sure", "lead")]
    tooltip = [alt.Tooltip(f"{field}:N", title=title) for field, title in tips]
    run = _part(BEST).mark_rule(strokeWidth=2, opacity=0.5)
    run = run.encode(x=alt.X("first:Q"), x2=alt.X2("last:Q"), y=row, color=marks["color"])
    points = filled_where(_part(BEST), "datum.sure === 'clear'", _scale(canvas, shapes))
    there = opacity(alt.condition("datum.sure === 'all equal'", alt.value(0), alt.value(1)))
    points = points.encode(x=x, y=row, shape=marks["shape"], opacity=there, tooltip=tooltip)
    said = (
        _part(BEST, "isValid(datum.middle)", f"datum.lane === {lane}")
        .mark_text(fontSize=10.5, baseline="top", dy=8 + SPACE * lane, color=GREY)
        .encode(x=alt.X("middle:Q"), y=row, text=alt.Text("name:N"))
        for lane in range(lanes)
    )
    head = (
        _part(BEST)
        .transform_aggregate(groupby=["panel"])
        .mark_text(align="right", text="best", fontSize=10.5, color=GREY)
    )
    head = head.encode(x=alt.value(-5), y=row)
    return [head, run, points, *said]


def _key(canvas: Canvas, curves: pd.DataFrame, shapes: list[str], best: pd.DataFrame) -> Text:
    """How the figure is read."""
    others = [shown for shown in canvas.shapes_of(curves) if shown not in shapes]
    said = (
        "Below each budget stands the best shape: filled where its lead over the runner-up is clear, hollow where not."
    )
    return join(
        [
            say("In grey: {}.", names(others)) if others else (),
            say(said) if len(best) else (),
            say("Shaded: 95 % intervals over prompts.")
            if curves[f"{METRIC}_lo"].notna().any()
            else say("No intervals: none are recorded."),
        ]
    )
