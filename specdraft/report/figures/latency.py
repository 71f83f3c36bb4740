"""Where the time of live decoding goes."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_DETAIL_PANELS, MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import settings_left_out
from specdraft.report.figures.charts import facet
from specdraft.report.theme import PARTS
from specdraft.report.words import Name, Text, join, plural, say

TITLE = "Where the time goes (measured)"
PART_OF = {
    "prefill_s": "prefill",
    "draft_s": "drafting",
    "predict_s": "pruning",
    "verify_s": "verifying",
    "other_s": "the rest",
}


def latency(canvas: Canvas) -> Figure | None:
    """Milliseconds per new token, by what they are spent on; None where nothing was decoded live."""
    live = canvas.findings.live.drop_duplicates(["panel", "tree", "budget"])
    if live.empty:
        return None
    rows = _at_headlines(canvas, live)
    if rows.empty:
        return Figure("latency", TITLE, say("Not drawn: no live combination stands at the budgets shown above."))
    table = _per_token(rows)
    note = say(
        "The orange tick is plain decoding of the same texts: a bar that ends before it is faster. Sums over prompts, "
        "without intervals; “the rest” holds acceptance and cache upkeep."
    )
    panels = canvas.panels_of(table)
    left = settings_left_out(list(dict.fromkeys(live["panel"])), panels)
    caption = join([*(_shares(panel, rows[rows["panel"] == panel]) for panel in panels[:MOST_SPOKEN]), note, left])
    height = max(50, 24 * rows["shown"].nunique())
    chart = _chart([part for part in PART_OF.values() if (table["part"] == part).any()])
    return drawn("latency", TITLE, caption, facet(chart, named("latency"), panels, height), {"latency": table})


def _at_headlines(canvas: Canvas, live: pd.DataFrame) -> pd.DataFrame:
    """The live rows of the drawn shapes at each panel's headline budget."""
    rows = []
    heads, there = canvas.findings.headlines, set(live["panel"])
    for panel in [panel for panel in canvas.panels if panel in there][: MOST_DETAIL_PANELS * 2]:
        budget = heads[panel].budget if panel in heads else live["competes"].max()
        rows.append(live[(live["panel"] == panel) & (live["competes"] == budget) & live["tree"].isin(canvas.trees)])
    timed = pd.concat(rows) if rows else live.iloc[:0]
    return timed[timed["new_tokens"] > 0]


def _per_token(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per combination and part, in milliseconds; `plain` is plain decoding's time."""
    spent = {column: part for column, part in PART_OF.items() if column != "predict_s" or rows[column].any()}
    per_token = {part: 1000 * rows[column].fillna(0) / rows["new_tokens"] for column, part in spent.items()}
    rows = rows.assign(**per_token, plain=1000 * rows["wall_s"] * rows["speedup"] / rows["new_tokens"])
    table = rows.melt(["panel", "shown", "budget", "plain"], list(per_token), "part", "ms")
    table["place"] = table["part"].map({part: place for place, part in enumerate(per_token)})
    return table


def _chart(parts_there: list[str]) -> Any:
    y = alt.Y("shown:N", title="shape")
    parts = alt.Scale(domain=parts_there, range=[PARTS[part] for part in parts_there])
    bars = (
        alt.Chart()
        .mark_bar()
        .encode(
            y=y,
            x=alt.X("sum(ms):Q", title="time per new token (ms)"),
            color=alt.Color("part:N", title="time for", scale=parts),
            order=alt.Order("place:Q"),
            tooltip=["shown:N", "part:N", alt.Tooltip("sum(ms):Q", format=".2f", title="ms per token")],
        )
    )
    tooltip = [alt.Tooltip("mean(plain):Q", title="plain decoding, ms")]
    tick = alt.Chart().mark_tick(thickness=3, color="#D55E00")
    return alt.layer(bars, tick.encode(y=y, x=alt.X("mean(plain):Q"), tooltip=tooltip))


def _shares(panel: str, rows: pd.DataFrame) -> Text:
    wall_s = rows["wall_s"].sum()
    return say(
        "{}, {}: verifying takes {} of the time, drafting {}.",
        Name(panel),
        plural(int(rows["budget"].iloc[0]), "node"),
        f"{rows['verify_s'].sum() / wall_s:.0%}",
        f"{rows['draft_s'].sum() / wall_s:.0%}",
    )
