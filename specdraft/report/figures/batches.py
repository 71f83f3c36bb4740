"""Tokens per second over the batch size: where trees stop to pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_DETAIL_SHAPES, MOST_PANELS, MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import settings_left_out
from specdraft.report.figures.charts import facet
from specdraft.report.theme import GREY
from specdraft.report.words import Name, Text, join, plural, say

TITLE = "Tokens per second over the batch size (measured)"
PLAIN = "plain decoding"


def batches(canvas: Canvas) -> Figure | None:
    """A line for plain decoding and for the fastest shapes; None where every text was decoded alone."""
    live = canvas.findings.live
    if "batch" not in live or live["batch"].nunique() < 2:
        return None
    rows = live.assign(panel=canvas.settings(live, but="batch"), batch=pd.to_numeric(live["batch"]))
    rows = rows[rows["tokens_per_s"].notna() & rows["speedup"].notna()]
    table = pd.concat([_fastest(rows), _plain(rows)], ignore_index=True)
    panels = [panel for panel in dict.fromkeys(table["panel"]) if table[table["panel"] == panel]["batch"].nunique() > 1]
    if not panels:
        return None
    table = table[table["panel"].isin(panels[:MOST_PANELS])].reset_index(drop=True)
    note = say(
        "Each shape at its fastest number of nodes in each batch. Plain decoding goes side by side in batches of the "
        "same size, through the same code; a batch of 1 is a text alone. The fastest of many is picked, which "
        "flatters it."
    )
    left = settings_left_out(panels, panels[:MOST_PANELS])
    sizes = sorted(table["batch"].unique().tolist())
    caption = join([*(_where_trees_stop(panel, table) for panel in panels[:MOST_SPOKEN]), note, left])
    return drawn(
        "batches", TITLE, caption, _chart(canvas, panels[:MOST_PANELS], _ways(table), sizes), {"batches": table}
    )


def _fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the shapes that are fastest anywhere, a row in each batch, with the budget that is fastest there."""
    best = rows.sort_values("tokens_per_s", ascending=False).drop_duplicates(["panel", "shown", "batch"])
    order = best.sort_values("speedup", ascending=False).drop_duplicates(["panel", "shown"])
    kept = order.groupby("panel").head(MOST_DETAIL_SHAPES)[["panel", "shown"]]
    chosen = best.merge(kept, on=["panel", "shown"]).rename(columns={"shown": "way"})
    return chosen[["panel", "way", "batch", "budget", "tokens_per_s", "speedup"]]


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """What stands beside them."""
    own = rows.assign(tokens_per_s=rows["tokens_per_s"] / rows["speedup"])
    table = own.groupby(["panel", "batch"], sort=False)[["tokens_per_s"]].mean().reset_index()
    return table.assign(way=PLAIN, budget=0, speedup=1.0)


def _ways(table: pd.DataFrame) -> list[str]:
    return [*(way for way in dict.fromkeys(table["way"]) if way != PLAIN), PLAIN]


def _chart(canvas: Canvas, panels: Sequence[str], ways: list[str], sizes: list[float]) -> Any:
    axis = alt.Axis(values=sizes)
    x = alt.X("batch:Q", title="texts side by side", scale=alt.Scale(type="log", base=2), axis=axis)
    y = alt.Y("tokens_per_s:Q", title="tokens per second, all texts together")
    numbers = [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("tokens_per_s", "speedup")]
    tooltip = ["way:N", "batch:Q", "budget:Q", *numbers]
    of_plain = (GREY, "circle", [4, 3])
    colours, symbols, dashes = (
        alt.Scale(domain=ways, range=[*canvas.scales.values(ways[:-1], part), of_plain[part]]) for part in range(3)
    )
    colour = alt.Color("way:N", title="shape", scale=colours)
    dash = alt.StrokeDash("way:N", title="shape", scale=dashes)
    marker = alt.Shape("way:N", title="shape", scale=symbols)
    lines = alt.Chart().mark_line().encode(x=x, y=y, color=colour, strokeDash=dash)
    points = alt.Chart().mark_point(filled=True, size=46, opacity=1)
    points = points.encode(x=x, y=y, color=colour, shape=marker, tooltip=tooltip)
    return facet(alt.layer(lines, points), named("batches"), list(panels), height=240)


def _where_trees_stop(panel: str, table: pd.DataFrame) -> Text:
    """From which batch size on nothing is faster than plain decoding."""
    trees = table[(table["panel"] == panel) & (table["way"] != PLAIN)]
    best = trees.sort_values("speedup", ascending=False).drop_duplicates("batch").sort_values("batch")
    pays = best[best["speedup"] > 1]
    if pays.empty:
        return say("{}: no tree is faster than plain decoding in any batch.", Name(panel))
    last, top = pays.iloc[-1], pays.sort_values("speedup").iloc[-1]
    fastest = say(
        "{}: trees gain most in batches of {} ({}, {}: {} times plain decoding)",
        Name(panel),
        f"{top['batch']:g}",
        Name(top["way"]),
        plural(int(top["budget"]), "node"),
        f"{top['speedup']:.2f}",
    )
    beyond = best[best["batch"] > last["batch"]]
    if beyond.empty:
        return say("{}, and are faster in every batch up to {}.", fastest, f"{last['batch']:g}")
    return say("{}; from {} texts on, none is faster.", fastest, f"{beyond.iloc[0]['batch']:g}")
