"""Chains as measured, against the closed form."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.figures.base import Figure, drawn, named
from specdraft.report.figures.canvas import CHAIN, Canvas
from specdraft.report.figures.charts import METRIC_TITLES, tips
from specdraft.report.study_files import visible
from specdraft.report.theme import GREY
from specdraft.report.words import Text, join, say
from specdraft.theory.formulas import expected_tokens

TITLE = "Measured against theory: chains"
TOKEN_WISE = (
    "greedy",
    "rejection",
    "recursive",
    "no_replacement",
    "kseq",
)  # on a chain these all accept with probability min(1, p/q)
MOST_POINTS = 400
COLUMNS = [
    "panel",
    "pair",
    "budget",
    "alpha",
    "predicted",
    "block_efficiency",
    "block_efficiency_lo",
    "block_efficiency_hi",
]


def theory(canvas: Canvas) -> Figure | None:
    """A point per chain; None without alpha, which exists under replayed sampling only."""
    rows = canvas.findings.rows
    rows = rows[rows["alpha"].notna()]
    if rows.empty:
        return None
    chains = _predicted(rows)
    if chains.empty:
        why = "Not drawn: the closed form is for chains under a token-wise rule ({}), and none was run."
        return Figure("theory", TITLE, say(why, ", ".join(TOKEN_WISE)))
    points = chains.iloc[:: 1 + len(chains) // MOST_POINTS]
    ends = [1.0, float(max(chains["predicted"].max(), chains["block_efficiency"].max())) * 1.05]
    note = say(
        "Theory: (1 - alpha^(n+1)) / (1 - alpha) with acceptances taken as independent (Leviathan et al. 2023); real "
        "acceptances are not, and the last step of a text is cut. On the dashed line both agree."
    )
    fewer = say("{} of {} points are drawn.", len(points), len(chains)) if len(chains) > MOST_POINTS else ()
    table = points[COLUMNS].assign(pair=points["pair"].map(visible)).reset_index(drop=True)
    tables = {"theory": table, "diagonal": pd.DataFrame({"v": ends})}
    bounded = chains["block_efficiency_lo"].notna().any()
    return drawn("theory", TITLE, join([_agreement(chains), note, fewer]), _chart(ends, bool(bounded)), tables)


def _predicted(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per chain that the closed form is for, with `predicted`: its tokens per step."""
    rule = rows["acceptance"] if "acceptance" in rows else pd.Series("", index=rows.index)
    chains = rows[(rows["tree"] == CHAIN) & rule.isin(TOKEN_WISE) & rows["alpha"].between(0, 1)]
    chains = chains[~chains["draft_temperature"].str.contains("-")]  # one alpha for all depths
    chains = chains.drop_duplicates(["panel", "budget"])
    gammas = chains["nodes"].fillna(chains["budget"])
    tokens = [expected_tokens(float(a), int(n)) for a, n in zip(chains["alpha"], gammas, strict=True)]
    return chains.assign(predicted=tokens)


def _chart(ends: list[float], bounded: bool) -> Any:
    diagonal = alt.Chart(named("diagonal")).mark_line(strokeDash=[4, 4], color=GREY).encode(x="v:Q", y="v:Q")
    scale = alt.Scale(domain=ends)
    x = alt.X("predicted:Q", title="predicted from alpha (tokens per step)", scale=scale)
    y = alt.Y("block_efficiency:Q", title=METRIC_TITLES["block_efficiency"], scale=scale)
    colour = alt.Color("pair:N", title="pair")
    base = alt.Chart(named("theory"))
    bars = base.mark_rule().encode(x=x, y=alt.Y("block_efficiency_lo:Q"), y2="block_efficiency_hi:Q", color=colour)
    points = base.mark_point(filled=True, size=50, opacity=1)
    points = points.encode(x=x, y=y, color=colour, shape=alt.Shape("pair:N", title="pair"), tooltip=tips(COLUMNS))
    return alt.layer(diagonal, *([bars] if bounded else []), points).properties(width=420, height=320)


def _agreement(chains: pd.DataFrame) -> Text:
    bounded = chains[chains["block_efficiency_lo"].notna()]
    if bounded.empty:
        return say("No intervals are recorded, so agreement cannot be judged.")
    low, high = bounded["block_efficiency_lo"], bounded["block_efficiency_hi"]
    inside, above = bounded["predicted"].between(low, high).sum(), (bounded["predicted"] > high).sum()
    return say(
        "The prediction lies within the measured 95 % interval for {} of {} chains, above it for {}, below it for {}.",
        inside,
        len(bounded),
        above,
        len(bounded) - inside - above,
    )
