"""Acceptance by the distance from the root: what a drafter's own states cost it."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.replay.offsets import chain_length
from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_PANELS, Canvas
from specdraft.report.figures.captions import settings_left_out
from specdraft.report.figures.charts import facet
from specdraft.report.figures.details import text_panels
from specdraft.report.words import Name, Text, join, say

TITLE = "Acceptance by the distance from the root"
FILE = "offsets.csv"
FEWEST = 30  # roots; a share of fewer is noise
CURVES = {  # what is drawn: a share of which roots
    "free-running": ("accepted", "reached"),
    "fresh states at the same places": ("fresh", "reached"),
    "at all places": ("top", "places"),
}


def offsets(canvas: Canvas) -> Figure | None:
    """Three curves a drafter; None where no greedy texts were replayed, or there is one offset only."""
    table = canvas.findings.study.details.get(FILE)
    if table is None or table.empty or table["offset"].max() < 2:
        return None
    rows = table.assign(panel=text_panels(table))
    rows = rows.groupby(["panel", "offset"], sort=False)[["places", "top", "reached", "accepted", "fresh"]].sum()
    rows = rows.reset_index()
    every = list(dict.fromkeys(rows["panel"]))
    panels = every[:MOST_PANELS]
    rows = rows[rows["panel"].isin(panels)]
    curves = pd.concat(
        rows[["panel", "offset"]].assign(curve=curve, roots=rows[of], share=rows[hits] / rows[of].where(rows[of] > 0))
        for curve, (hits, of) in CURVES.items()
    )
    curves = curves[curves["roots"] >= FEWEST].reset_index(drop=True)
    note = say(
        "Every place of the greedy texts is a root. Free-running: of the roots behind which the drafter's first "
        "choices were the text's so far, where the next one is too. Fresh states: of the same places, where its first "
        "choice is right if the root stands right before them: what training accuracy tells. The gap between both is "
        "what the distance costs. At all places: whatever it would have proposed on the way."
    )
    caption = join(
        [*(_chains(panel, rows[rows["panel"] == panel]) for panel in panels), note, settings_left_out(every, panels)]
    )
    return drawn("offsets", TITLE, caption, _chart(panels), {"offsets": curves})


def _chains(panel: str, rows: pd.DataFrame) -> Text:
    """What a chain gets accepted, and what it would if all levels were as good as the first."""
    kept = rows[rows["reached"] >= FEWEST].sort_values("offset")
    first = float(kept["accepted"].iloc[0] / kept["reached"].iloc[0]) if len(kept) else 0.0
    free, fresh = (chain_length((kept[hits] / kept["reached"]).to_numpy()) for hits in ("accepted", "fresh"))
    return say(
        "{}: a chain of {} has {} accepted tokens; with fresh states at every level it would have {}, and {} if all "
        "were as good as the first ({}).",
        Name(panel),
        len(kept),
        f"{free:.2f}",
        f"{fresh:.2f}",
        f"{chain_length(pd.Series([first] * len(kept)).to_numpy()):.2f}",
        f"{first:.1%}",
    )


def _chart(panels: list[str]) -> Any:
    x = alt.X("offset:Q", title="tokens from the root", axis=alt.Axis(format="d", tickMinStep=1, grid=False))
    y = alt.Y("share:Q", title="right first choices (share)", scale=alt.Scale(domain=[0, 1]))
    names = list(CURVES)
    colour = alt.Color("curve:N", title=None, sort=names)
    dash = alt.StrokeDash("curve:N", sort=names, legend=None)
    tooltip = ["curve:N", "offset:Q", alt.Tooltip("share:Q", format=".3f"), "roots:Q"]
    lines = alt.Chart().mark_line(point=True).encode(x=x, y=y, color=colour, strokeDash=dash, tooltip=tooltip)
    return facet(alt.layer(lines), named("offsets"), panels, height=200)
