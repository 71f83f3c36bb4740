"""What pruning costs: accepted tokens that are lost, over the share of nodes that are left out."""

from __future__ import annotations

import re
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_PANELS, MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import settings_left_out
from specdraft.report.figures.charts import facet
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Text, join, plural, say

TITLE = "What pruning costs"
SHOWN = ["panel", "shown", "policy", "curve", "budget", "pruned_share",
         "regret_tokens", "regret_tokens_lo", "regret_tokens_hi"]  # fmt: skip
SETTING = re.compile(r"-[a-z]+\d[\d.]*(e-?\d+)?(?=-|$)")  # a number in a policy's name: `-map0.03`


def pruning(canvas: Canvas) -> Figure | None:
    """A point per pruned tree and policy, a line through the settings of one policy; None where nothing was pruned and
    replayed."""
    rows = canvas.findings.rows
    if "pruning" not in rows or "regret_tokens" not in rows:
        return None
    rows = rows[rows["regret_tokens"].notna()]  # of whole trees it is empty
    if rows.empty:
        return None
    points = rows.assign(panel=canvas.settings(rows, but="pruning"), policy=rows["pruning"].map(visible))
    points["curve"] = points["policy"].str.replace(SETTING, "", regex=True)
    every = list(dict.fromkeys(points["panel"]))
    panels = every[:MOST_PANELS]
    table = points[points["panel"].isin(panels)].reset_index(drop=True)[SHOWN]
    note = say(
        "Lost per place of the texts at which a step could start: what the whole tree accepts there, less what is left "
        "of it. Bars are 95 % intervals; a line joins the settings of one policy on one tree."
    )
    caption = join(
        [*(_gentlest(panel, table) for panel in panels[:MOST_SPOKEN]), note, settings_left_out(every, panels)]
    )
    return drawn(
        "pruning", TITLE, caption, _chart(canvas, panels, list(dict.fromkeys(table["shown"]))), {"pruning": table}
    )


def _chart(canvas: Canvas, panels: list[str], shapes: list[str]) -> Any:
    x = alt.X("pruned_share:Q", title="nodes left out (share)", axis=alt.Axis(format="%"))
    y = alt.Y("regret_tokens:Q", title="accepted tokens lost per start")
    colour = alt.Color("shown:N", title="shape", scale=canvas.scales.scale(shapes))
    shape = alt.Shape("curve:N", title="pruning")
    lines = alt.Chart().mark_line(strokeWidth=1.2).encode(x=x, y=y, color=colour, detail=["curve:N", "budget:N"])
    ends = {"y": alt.Y("regret_tokens_lo:Q", title="accepted tokens lost per start"), "y2": "regret_tokens_hi:Q"}
    bars = alt.Chart().mark_rule(strokeWidth=1.2).encode(x=x, color=colour, **ends)
    tooltip = ["shown:N", "policy:N", "budget:Q", alt.Tooltip("pruned_share:Q", format=".1%")]
    tooltip.append(alt.Tooltip("regret_tokens:Q", format=".3f"))
    points = alt.Chart().mark_point(filled=True, size=55, opacity=1)
    points = points.encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip)
    return facet(alt.layer(lines, bars, points), named("pruning"), panels, height=240)


def _gentlest(panel: str, table: pd.DataFrame) -> Text:
    """The policy that leaves out most for its loss."""
    rows = table[(table["panel"] == panel) & (table["pruned_share"] > 0)]
    if rows.empty:
        return say("{}: no policy left anything out.", Name(panel))
    best = rows.assign(price=rows["regret_tokens"] / rows["pruned_share"]).sort_values("price").iloc[0]
    return say(
        "{}: the least is lost per node left out by {} on {} with {}: {} of the nodes, {} tokens.",
        Name(panel),
        Name(best["policy"]),
        Name(best["shown"]),
        plural(int(best["budget"]), "node"),
        f"{best['pruned_share']:.0%}",
        f"{best['regret_tokens']:.3f}",
    )
