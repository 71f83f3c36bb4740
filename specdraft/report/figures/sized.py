"""Tokens per second over the node budget: trees that are sized in every step beside trees that always have it all."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import MOST_PANELS, MOST_SPOKEN, Canvas
from specdraft.report.figures.captions import settings_left_out
from specdraft.report.figures.charts import dashed, facet, ticks
from specdraft.report.sized_table import SPEEDS, STOP
from specdraft.report.study_files import visible
from specdraft.report.words import Name, Text, join, plural, say

TITLE = "Trees sized in every step by what they cost"
FIXED, SIZED = "the whole budget in every step", "as many nodes as pay (stop=goodput)"


def sized(canvas: Canvas) -> Figure | None:
    """A line for each tree at every budget, one for it with `stop=goodput`, and plain decoding; None where there is no
    such tree, or nothing has a time."""
    rows = canvas.findings.rows
    if "pruning" in rows:  # a stop is a policy: what it is set beside has none
        rows = rows.assign(panel=canvas.settings(rows, but="pruning"))
    trees = rows.loc[rows["tree"].str.endswith(STOP), "tree"].str.removesuffix(STOP).unique()
    if not len(trees) or "engine" not in rows:
        return None
    table = pd.concat([_speeds(rows[rows["engine"] == engine], *of) for engine, of in SPEEDS.items()])
    table = table[table["plain_tree"].isin(trees) & table["tokens_per_s"].notna()].copy()
    if table.empty:
        return None
    shapes = [""] if len(trees) == 1 else [f", {visible(tree)}" for tree in table["plain_tree"]]
    table["panel"] = table["panel"].map(visible) + (shapes if len(trees) > 1 else shapes[0])
    every = list(dict.fromkeys(table["panel"]))
    panels = every[:MOST_PANELS]
    table = table[table["panel"].isin(panels)].drop(columns="plain_tree").reset_index(drop=True)
    note = say(
        "Numbers beside points: nodes sent, mean over the steps. The dashed line is plain decoding, no tree at all. "
        "Where the engine is replay, seconds are estimated from counts and costs."
    )
    caption = join([*(_best(panel, table) for panel in panels[:MOST_SPOKEN]), note, settings_left_out(every, panels)])
    budgets = ticks(set(table["budget"].astype(int)))
    return drawn("sized", TITLE, caption, _chart(panels, budgets), {"sized": table})


def _speeds(rows: pd.DataFrame, speed: str, ratio: str) -> pd.DataFrame:
    """A row each of trees that send all of their nodes, and of those that are sized."""
    is_sized = rows["tree"].str.endswith(STOP)
    whole = rows["pruning"].isin(["", "none"]) if "pruning" in rows else True
    some = rows[is_sized | whole]
    return pd.DataFrame(
        {
            "panel": some["panel"],
            "plain_tree": some["tree"].str.removesuffix(STOP),
            "way": some["tree"].str.endswith(STOP).map({True: SIZED, False: FIXED}),
            "budget": some["budget"],
            "tokens_per_s": some[speed],
            "plain_tokens_per_s": some[speed] / some[ratio],
            "nodes": some["drafted_tokens"] / some["steps"],
        }
    )


def _chart(panels: list[str], budgets: list[int]) -> Any:
    x = alt.X("budget:Q", title="nodes at most", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=budgets))
    y = alt.Y("tokens_per_s:Q", title="tokens per second", scale=alt.Scale(zero=False))
    colour = alt.Color("way:N", title="sends", scale=alt.Scale(domain=[FIXED, SIZED]))
    tooltip = ["way:N", "budget:Q", *(alt.Tooltip(f"{name}:Q", format=".1f") for name in ("tokens_per_s", "nodes"))]
    lines = alt.Chart().mark_line(point=True).encode(x=x, y=y, color=colour, tooltip=tooltip)
    sent = (
        alt.Chart().mark_text(dy=-9, fontSize=9).encode(x=x, y=y, color=colour, text=alt.Text("nodes:Q", format=".1f"))
    )
    sent = sent.transform_filter(alt.datum.way == SIZED)
    plain = dashed(alt.Chart()).encode(y=alt.Y("mean(plain_tokens_per_s):Q", title="tokens per second"))
    return facet(alt.layer(plain, lines, sent), named("sized"), panels, height=220)


def _best(panel: str, table: pd.DataFrame) -> Text:
    """What is fastest in a panel."""
    rows = table[table["panel"] == panel]
    top, plain = rows.iloc[int(rows["tokens_per_s"].argmax())], rows["plain_tokens_per_s"].mean()
    if plain >= top["tokens_per_s"]:
        best = "{}: no tree is the fastest, with {} tokens per second; of trees {} is ({} at most, {})."
        return say(best, Name(panel), f"{plain:.1f}", *_said(top))
    return say("{}: fastest is {} ({} at most, {} tokens per second).", Name(panel), *_said(top))


def _said(top: pd.Series[Any]) -> tuple[str, str, str]:
    return str(top["way"]), plural(int(top["budget"]), "node"), f"{top['tokens_per_s']:.1f}"
