"""How many draft tokens a step gets accepted."""

from __future__ import annotations

from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import absent, left_out_details
from specdraft.report.figures.charts import facet
from specdraft.report.figures.details import at_budgets, chosen_details, detail_rows
from specdraft.report.leads import Lead
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Text, join, say

MOST_LENGTH = 12  # longer ones share the last bar


class Shares(NamedTuple):
    """Steps by accepted tokens.

    Attributes:
        table: a row per panel, shape and length (`capped`; `length` is its label), with its `share` of the steps.
        labels: every length's, in order.
    """

    table: pd.DataFrame
    labels: list[str]


def lengths(canvas: Canvas) -> Figure:
    """The share of the steps that accept so many tokens."""
    chosen = chosen_details(canvas)
    title = f"How many draft tokens a step gets accepted{at_budgets(chosen)}"
    rows = detail_rows(canvas, "lengths.csv", chosen)
    if rows.empty:
        return Figure("lengths", title, absent(canvas, "lengths.csv"))
    shares = _shares(rows)
    spoken = [_most_frequent(lead, shares.table) for lead, _ in chosen[:MOST_SPOKEN]]
    caption = join([*spoken, left_out_details(canvas)])
    return drawn("lengths", title, caption, _chart(canvas, shares), {"lengths": shares.table})


def _shares(rows: pd.DataFrame) -> Shares:
    rows = rows.assign(capped=rows["acceptance_length"].clip(upper=MOST_LENGTH))
    table = rows.groupby(["panel", "shown", "capped"], sort=False)["steps"].sum().reset_index()
    totals = table.groupby(["panel", "shown"])["steps"].transform("sum")
    table = table.assign(share=table["steps"] / totals.where(totals > 0))
    capped = bool((rows["acceptance_length"] > MOST_LENGTH).any())
    labels = {n: f"{n}+" if capped and n == MOST_LENGTH else str(n) for n in range(MOST_LENGTH + 1)}
    return Shares(table.assign(length=table["capped"].astype(int).map(labels)), list(labels.values()))


def _chart(canvas: Canvas, shares: Shares) -> Any:
    shapes = canvas.shapes_of(shares.table)
    bars = (
        alt.Chart()
        .mark_bar()
        .encode(
            x=alt.X(
                "length:O", title="accepted draft tokens in a step", sort=shares.labels, axis=alt.Axis(labelAngle=0)
            ),
            y=alt.Y("share:Q", title="steps (share)", axis=alt.Axis(format="%")),
            xOffset=alt.XOffset("shown:N", sort=shapes),
            color=alt.Color("shown:N", scale=canvas.scales.scale(shapes), legend=alt.Legend(title="shape")),
            tooltip=["shown:N", "length:O", alt.Tooltip("share:Q", format=".1%"), "steps:Q"],
        )
    )
    return facet(bars, named("lengths"), canvas.panels_of(shares.table), height=220)


def _most_frequent(lead: Lead, table: pd.DataFrame) -> Text:
    """What the leader's steps accept most often, and how often nothing."""
    shown = visible(lead.tree)
    rows = table[(table["panel"] == lead.panel) & (table["shown"] == shown)].sort_values("capped")
    if rows.empty:
        return ()
    most = rows.sort_values("share", ascending=False, kind="stable").iloc[0]
    return say(
        "{}, {}: {} of the steps accept nothing; the most frequent number is {} ({}).",
        Name(lead.panel),
        Name(shown),
        f"{rows.loc[rows['capped'] == 0, 'share'].sum():.0%}",
        most["length"],
        f"{most['share']:.0%}",
    )
