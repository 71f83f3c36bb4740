"""The lead of each budget's winner over its runner-up, with its interval."""

from __future__ import annotations

from math import isnan
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import Canvas
from specdraft.report.figures.captions import left_out
from specdraft.report.figures.charts import dashed, facet, filled_where
from specdraft.report.leads import CLEAR, Lead
from specdraft.report.study_files import visible
from specdraft.report.theme import GREY
from specdraft.report.words import Text, join, say

TITLE = "The winner's lead over the runner-up, by node budget"


def winners(canvas: Canvas) -> Figure:
    """Every lead of the drawn panels."""
    contested = [lead for lead in canvas.findings.leads if lead.runner is not None and not isnan(lead.lead.value)]
    leads = [lead for lead in contested if lead.panel in canvas.panels]
    if not leads:
        several = canvas.all_shapes > 1
        why = "comparisons.csv gives no lead here" if several else "a single shape has no runner-up"
        return Figure("lead", TITLE, say("Not drawn: {}.", why))
    table = pd.DataFrame([_row(lead) for lead in leads])
    note = say("Leads are paired differences; hindsight trees do not compete.")
    caption = join([_how_many_are_clear(contested), note, left_out(canvas)])
    return drawn("lead", TITLE, caption, _chart(canvas, table), {"lead": table})


def _row(lead: Lead) -> dict[str, Any]:
    return {
        "panel": lead.panel,
        "budget": str(lead.budget),
        "order": lead.budget,
        "shown": visible(lead.tree),
        "leader": lead.said(lead.tree),
        "runner": lead.said(lead.runner or ""),
        "lead": lead.lead.value,
        "low": lead.lead.low,
        "high": lead.lead.high,
        "sure": lead.verdict,
    }


def _how_many_are_clear(contested: list[Lead]) -> Text:
    clear, rated = sum(lead.verdict == CLEAR for lead in contested), sum(lead.lead.known for lead in contested)
    if not rated:
        return say("No lead has an interval: nothing shows a winner.")
    return say(
        "{} of {} leads have a 95 % interval that lies above 0 (filled symbols); the others (hollow ones) do not "
        "show a winner.",
        clear,
        rated,
    )


def _chart(canvas: Canvas, table: pd.DataFrame) -> Any:
    y = alt.Y("budget:O", title="node budget", sort=[str(budget) for budget in sorted(set(table["order"]))])
    x = alt.X("lead:Q", title="lead (tokens per step)", scale=alt.Scale(domain=_domain(table), nice=True))
    zero = dashed(alt.Chart()).encode(x=alt.XDatum(0))
    shapes = canvas.leading
    colour = alt.Color("shown:N", scale=canvas.scales.scale(shapes), legend=None)
    marker = alt.Shape("shown:N", scale=canvas.scales.scale(shapes, 1), legend=None)
    bars = alt.Chart().mark_rule(strokeWidth=2).encode(y=y, x=alt.X("low:Q"), x2=alt.X2("high:Q"), color=colour)
    tips = {"leader": "leads", "runner": "runner-up", "sure": "verdict"}
    tooltip = [
        *(alt.Tooltip(f"{name}:N", title=title) for name, title in tips.items()),
        *map(alt.Tooltip, ("lead:Q", "low:Q", "high:Q")),
    ]
    points = filled_where(alt.Chart(), f"datum.sure === '{CLEAR}'", canvas.scales.scale(shapes))
    points = points.encode(y=y, x=x, shape=marker, tooltip=tooltip)
    label = alt.Chart().mark_text(align="left", dx=4, dy=-10, fontSize=10.5, color=GREY)
    label = label.encode(y=y, x=alt.XDatum(0), text=alt.Text("words:N"))
    label = label.transform_calculate(words="datum.leader + ' over ' + datum.runner")
    layers = [zero, *([bars] if table["low"].notna().any() else []), points, label]
    height = max(60, 34 * table["budget"].nunique())
    return facet(alt.layer(*layers), named("lead"), canvas.panels_of(table), height=height)


def _domain(table: pd.DataFrame) -> list[float]:
    """From the lowest bound to the highest and 0, with room for names."""
    values = table[["lead", "low", "high"]]
    low, high = min(0.0, values.min().min()), max(0.0, values.max().max())
    return [low, high + 0.5 * (high - low)]
