"""Block efficiency over the temperature that the drafter draws with, a line per rule."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from specdraft.report.cross_fit import best_row
from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_PANELS, MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import settings_left_out
from specdraft.report.figures.charts import METRIC_TITLES, facet, interval_tips
from specdraft.report.marks import marks
from specdraft.report.study_files import plain_number, settings_without
from specdraft.report.words import Name, Text, join, plural, say
from specdraft.results.intervals import Interval

TITLE = "Block efficiency over the draft temperature"
RATIO = "block_efficiency"
OWN = ("acceptance", "draft_temperature")
COLUMNS = ["panel", "acceptance", "drawn_at", "by_depth", RATIO, f"{RATIO}_lo", f"{RATIO}_hi"]


def draft_temperature(canvas: Canvas) -> Figure | None:
    """Rules that draw, each with one tree of one size; None where all drafters draw at the target's temperature."""
    rows = canvas.findings.rows
    if "draft_temperature" not in canvas.findings.study.varying or not rows["draft_temperature"].any():
        return None
    table = _rows(canvas, rows)
    if table.empty:
        return None
    panels = list(dict.fromkeys(table["panel"]))
    note = say(
        "Drawn at another temperature than the target's, children are other ones; a lossless rule's text is the "
        "target's all the same. 1-0.8 is by depth: 1 at the first, 0.8 below it."
    )
    left = settings_left_out(panels, panels[:MOST_PANELS])
    spoken = (_highest(canvas, panel, table) for panel in panels[:MOST_SPOKEN])
    table = table[table["panel"].isin(panels[:MOST_PANELS])].reset_index(drop=True)
    chart = _chart(table, panels[:MOST_PANELS])
    return drawn("draft_temperature", TITLE, join([*spoken, note, left]), chart, {"draft_temperature": table[COLUMNS]})


def _rows(canvas: Canvas, rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each rule and draft temperature of every tree that has several, at its largest size."""
    own = rows["draft_temperature"]
    at = own.where(own != "", rows["temperature"]).map(plain_number)
    settings = settings_without([key for key in canvas.findings.study.varying if key != OWN[0]], rows, OWN[1])
    trees = zip(settings, rows["shown"], rows["nodes"], strict=True)
    panel = [f"{setting} · {shown}, {plural(int(nodes), 'node')}" for setting, shown, nodes in trees]
    table = rows.assign(panel=panel, drawn_at=at, by_depth=at.str.contains("-"), as_target=own == "")
    several = table.groupby(["panel", OWN[0]])["drawn_at"].transform("nunique") > 1
    table = table[several]
    return table[table["budget"] == table.groupby(["pair", "tree"])["budget"].transform("max")]


def _in_order(table: pd.DataFrame) -> list[str]:
    """Temperatures from the lowest one up, those by depth behind them."""
    known = table.drop_duplicates("drawn_at")
    numbers = pd.to_numeric(known["drawn_at"], errors="coerce").fillna(np.inf)
    return list(known.assign(number=numbers).sort_values("number", kind="stable")["drawn_at"])


def _chart(table: pd.DataFrame, panels: list[str]) -> Any:
    rules = list(dict.fromkeys(table["acceptance"]))
    known = marks(rules)
    colours, symbols = ([known[rule][part] for rule in rules] for part in range(2))
    x = alt.X("drawn_at:N", title="draft temperature", sort=_in_order(table), axis=alt.Axis(labelAngle=0))
    y = alt.Y(f"{RATIO}:Q", title=METRIC_TITLES[RATIO], scale=alt.Scale(zero=False))
    colour = alt.Color("acceptance:N", title="rule", scale=alt.Scale(domain=rules, range=colours))
    marker = alt.Shape("acceptance:N", title="rule", scale=alt.Scale(domain=rules, range=symbols))
    aside = alt.XOffset("acceptance:N", sort=rules)
    line = alt.Chart().transform_filter("!datum.by_depth").mark_line(opacity=0.5)
    lines = line.encode(x=x, xOffset=aside, y=y, color=colour)
    bars = alt.Chart().mark_rule(strokeWidth=2)
    bars = bars.encode(x=x, xOffset=aside, y=f"{RATIO}_lo:Q", y2=f"{RATIO}_hi:Q", color=colour)
    tips = [alt.Tooltip("acceptance:N", title="rule"), alt.Tooltip("drawn_at:N", title="draft temperature")]
    points = alt.Chart().mark_point(filled=True, size=46, opacity=1)
    points = points.encode(x=x, xOffset=aside, y=y, color=colour, shape=marker, tooltip=[*tips, *interval_tips(RATIO)])
    layers = [*([bars] if table[f"{RATIO}_lo"].notna().any() else []), lines, points]
    return facet(alt.layer(*layers), named("draft_temperature"), panels, height=240)


def _highest(canvas: Canvas, panel: str, table: pd.DataFrame) -> Text:
    """At which temperature each rule gets most, and what it gets at the target's."""
    rows = table[table["panel"] == panel]
    of_rules = [_of_rule(canvas, rows[rows["acceptance"] == rule]) for rule in dict.fromkeys(rows["acceptance"])]
    return say("{}: {}.", Name(panel), join(of_rules, "; "))


def _of_rule(canvas: Canvas, rows: pd.DataFrame) -> Text:
    top, most = best_row(canvas.findings.halves, rows, RATIO)
    said = say("{} gets most at {} ({})", Name(top["acceptance"]), top["drawn_at"], most)
    if top["as_target"]:
        return say("{}, the target's own temperature", said)
    usual = rows[rows["as_target"]]
    if usual.empty:
        return said
    own = Interval.of(usual.iloc[0], RATIO)
    if not (own.known and most.known):
        return say("{}, {} at the target's", said, own)
    apart = "apart" if most.low > own.high or own.low > most.high else "overlapping"
    return say("{}, {} at the target's, intervals {}", said, own, apart)
