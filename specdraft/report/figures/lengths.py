"""How many draft tokens a step gets accepted."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import absent, left_out_details
from specdraft.report.figures.charts import evenly, facet
from specdraft.report.figures.details import PLACE, at_budgets, chosen_details, detail_rows, pointed_lines, share_tips
from specdraft.report.figures.shares import about_intervals, with_intervals
from specdraft.report.leads import Lead
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Text, join, say

FEWEST = 0.01  # shares below are not drawn


def lengths(canvas: Canvas) -> Figure:
    """The share of the steps that accept so many tokens or more."""
    chosen = chosen_details(canvas)
    title = f"How many draft tokens a step gets accepted{at_budgets(chosen)}"
    rows = detail_rows(canvas, "lengths.csv", chosen)
    if rows.empty:
        return Figure("lengths", title, absent(canvas, "lengths.csv"))
    every = at_least(rows)
    spoken = [_half_and_nothing(lead, every[every["headline"]]) for lead, _ in chosen[:MOST_SPOKEN]]
    table = every[(every["tokens"] > 0) & (every["rate"] >= FEWEST)].reset_index(drop=True)
    if table.empty:
        return Figure("lengths", title, say("Not drawn: no step of these trees accepted anything."))
    note = say(
        "A point is the share of the steps that accept so many tokens or more; shares below {} are left out. {}",
        f"{FEWEST:.0%}",
        about_intervals(table),
    )
    caption = join([*spoken, note, left_out_details(canvas, canvas.panels_of(table))])
    return drawn("lengths", title, caption, _chart(canvas, table), {"lengths": table})


def at_least(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per panel, shape, budget and number of tokens from 0 on, with `rate`: the share of the steps that accept as
    many or more, and its interval."""
    tables = []
    for place, some in rows.groupby(PLACE, sort=False):
        most = int(some["acceptance_length"].max())
        steps = some.groupby("acceptance_length")["steps"].sum().reindex(range(most + 1), fill_value=0)
        reached = steps[::-1].cumsum()[::-1]
        counts = pd.DataFrame({"tokens": reached.index, "exactly": steps, "rate": reached / steps.sum()})
        own = dict(zip(PLACE, place, strict=True)) | {"steps": steps.sum(), "effect": some["effect"].iloc[0]}
        tables.append(counts.assign(**own))
    every = with_intervals(pd.concat(tables, ignore_index=True), "rate", "steps")
    return every.drop(columns="effect")


def _chart(canvas: Canvas, table: pd.DataFrame) -> Any:
    axis = alt.Axis(values=evenly(int(table["tokens"].max())), format="d", grid=False)
    scale = alt.Scale(nice=False, zero=False, padding=8)
    x = alt.X("tokens:Q", title="accepted draft tokens in a step, at least", axis=axis, scale=scale)
    y = alt.Y("rate:Q", title="steps (share)", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    lines = pointed_lines(canvas, x, y, canvas.shapes_of(table[table["headline"]]), share_tips("tokens", "steps"))
    return facet(alt.layer(*lines), named("lengths"), canvas.panels_of(table), height=220).resolve_scale(
        x="independent"
    )


def _half_and_nothing(lead: Lead, every: pd.DataFrame) -> Text:
    """How often the leader's steps accept nothing, and how many tokens at least half of them accept."""
    shown = visible(lead.tree)
    rows = every[(every["panel"] == lead.panel) & (every["shown"] == shown)]
    if rows.empty:
        return ()
    half = int(rows.loc[rows["rate"] >= 0.5, "tokens"].max())
    nothing = rows["exactly"].iloc[0] / rows["steps"].iloc[0]
    return say(
        "{}, {}: {} of the steps accept nothing; half of them or more accept {} or more.",
        Name(lead.panel),
        Name(shown),
        f"{nothing:.0%}",
        half,
    )
