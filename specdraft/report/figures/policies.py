"""Tokens per step over drafted tokens: length policies beside constant lengths and the oracle."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_PANELS, MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import settings_left_out
from specdraft.report.figures.charts import facet
from specdraft.report.figures.pruning import SETTING
from specdraft.report.lengths_table import ORACLE, chains_of
from specdraft.report.study_files import visible
from specdraft.report.theme import GREY
from specdraft.report.words import Name, Text, join, say

TITLE = "How long chains are: what a drafted token brings"


def policies(canvas: Canvas) -> Figure | None:
    """A line through the constant lengths of each setting, a point for each policy; None where there is no policy."""
    chains = chains_of(canvas.findings)
    if chains is None:
        return None
    chains = chains.sort_values("budget", kind="stable")
    last = ["setting", "policy", "engine"]
    of_policies = chains[chains["policy"] != ""].drop_duplicates(last, keep="last")
    table = pd.concat([chains[chains["policy"] == ""], of_policies])
    table = pd.DataFrame(
        {
            "panel": table["setting"].map(visible),
            "policy": table["policy"].map(visible),
            "curve": table["policy"].map(visible).str.replace(SETTING, "", regex=True),
            "budget": table["budget"],
            "drafted": table["drafted"],
            "tokens": table["block_efficiency"],
            "constant": table["equal"],
        }
    )
    every = list(dict.fromkeys(table["panel"]))
    panels = every[:MOST_PANELS]
    table = table[table["panel"].isin(panels)].reset_index(drop=True)
    caption = join([_caption(table), settings_left_out(every, panels)])
    return drawn("policies", TITLE, caption, _chart(panels), {"policies": table})


def _chart(panels: list[str]) -> Any:
    x = alt.X("drafted:Q", title="drafted tokens a step")
    y = alt.Y("tokens:Q", title="tokens per step", scale=alt.Scale(zero=False))
    tooltip = ["policy:N", "budget:Q", *(alt.Tooltip(f"{name}:Q", format=".2f") for name in ("drafted", "tokens"))]
    constant = alt.Chart().mark_line(point={"color": GREY, "size": 18}, color=GREY)
    constant = constant.encode(x=x, y=y, order="drafted:Q", tooltip=tooltip)
    constant = constant.transform_filter(alt.datum.policy == "")
    colour = alt.Color("curve:N", legend=alt.Legend(title="length", columns=4))
    shape = alt.Shape("curve:N", legend=None)
    chosen = alt.Chart().transform_filter(alt.datum.policy != "")
    lines = chosen.mark_line(strokeWidth=1.2).encode(x=x, y=y, color=colour, order="drafted:Q")
    points = chosen.mark_point(filled=True, size=70, opacity=1)
    points = points.encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip)
    return facet(alt.layer(constant, lines, points), named("policies"), panels, height=220)


def _caption(table: pd.DataFrame) -> Text:
    note = say(
        "The grey line joins constant lengths, each point is a policy with the study's largest budget; lines join the "
        "settings of one. Above the grey line a policy makes more of its drafted tokens than a constant length "
        "does. The oracle drafts what is accepted."
    )
    panels = list(dict.fromkeys(table["panel"]))[:MOST_SPOKEN]
    return join([*(_best(panel, table[table["panel"] == panel]) for panel in panels), note])


def _best(panel: str, rows: pd.DataFrame) -> Text:
    """What is farthest above the constants of a panel."""
    rows = rows[~rows["policy"].isin(["", ORACLE]) & rows["constant"].notna()]
    if rows.empty:
        return ()
    best = rows.iloc[int((rows["tokens"] - rows["constant"]).argmax())]
    return say(
        "{}: the most over a constant length that drafts as much has {}: {} tokens per step, {} more.",
        Name(panel),
        Name(best["policy"]),
        f"{best['tokens']:.2f}",
        f"{best['tokens'] - best['constant']:.2f}",
    )
