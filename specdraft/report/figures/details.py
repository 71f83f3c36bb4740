"""What the figures of the trees' inner workings share: which combinations, their rows, and lines with points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from specdraft.report.figures.canvas import CHAIN, MOST_DETAIL_PANELS, MOST_DETAIL_SHAPES, Canvas, spread
from specdraft.report.figures.charts import picking
from specdraft.report.figures.shares import design_effects
from specdraft.report.leads import Lead
from specdraft.report.study_files import visible
from specdraft.report.words import plural
from specdraft.trees.shapes import is_reference

FEWEST_REACHED = 20  # steps; rates over fewer are noise


PLACE = ["panel", "shown", "budget", "headline"]  # what tells the lines of a figure of details apart


class Chosen(NamedTuple):
    """A panel at its headline budget, and the shapes that are drawn of it."""

    lead: Lead
    trees: list[str]


def chosen_details(canvas: Canvas) -> list[Chosen]:
    """Panels and shapes whose inner workings are drawn: leader, runner-up, chain and the reference at the
    headline budget."""
    heads = canvas.findings.headlines
    panels = [panel for panel in canvas.panels if panel in heads]
    contested = [panel for panel in panels if heads[panel].shapes > 1]
    kept = spread(contested or panels, canvas.pair_of(), MOST_DETAIL_PANELS)
    return [Chosen(heads[panel], _trees_of(canvas, heads[panel])) for panel in kept]


def _trees_of(canvas: Canvas, lead: Lead) -> list[str]:
    rows = canvas.at(lead.panel, lead.budget).sort_values("block_efficiency", ascending=False)
    ranked = [tree for tree in rows["tree"] if not is_reference(tree)]
    first = [lead.tree, *([lead.runner] if lead.runner else []), *([CHAIN] if CHAIN in ranked else [])]
    trees = list(dict.fromkeys([*first, *ranked]))[:MOST_DETAIL_SHAPES]
    return [tree for tree in trees if tree in canvas.trees]


def at_budgets(chosen: Iterable[Chosen]) -> str:
    """The end of a title: `, at 16 nodes`."""
    budgets = sorted({lead.budget for lead, _ in chosen})
    if not budgets:
        return ""
    return f", at {plural(budgets[0], 'node')}" if len(budgets) == 1 else f", at {budgets[0]} to {budgets[-1]} nodes"


def detail_rows(canvas: Canvas, file: str, chosen: Iterable[Chosen]) -> pd.DataFrame:
    """A detail table's rows of the chosen shapes at every budget, with `panel`, `shown`, `budget` (at which they
    compete), `headline` (whether this is the one that is spoken of), `all_steps` and `effect` (see `shares`)."""
    table = canvas.findings.study.details.get(file)
    wanted = []
    for lead, trees in chosen:
        rows = canvas.rows[(canvas.rows["panel"] == lead.panel) & canvas.rows["tree"].isin(trees)]
        wanted.append(rows.assign(headline=rows["competes"] == lead.budget))
    if table is None or not wanted or not table["combination"].isin(pd.concat(wanted)["combination"]).any():
        return pd.DataFrame()
    rows = pd.concat(wanted)
    keys = rows[["combination", "panel", "tree", "shown", "competes", "headline", "steps"]]
    keys = keys.rename(columns={"steps": "all_steps", "competes": "budget"})
    effects = design_effects(rows, canvas.findings.study.details.get("lengths.csv"))
    return table.merge(keys.assign(effect=effects.to_numpy()), on="combination")


def often_reached(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that enough steps reached; all of them where none was."""
    often = rows["reached"] >= FEWEST_REACHED
    return rows[often] if often.any() else rows


def pointed_lines(canvas: Canvas, x: alt.X, y: alt.Y, shapes: list[str], tooltip: list[Any]) -> list[Any]:
    """A line with points for every shape, and bars from `low` to `high`."""
    pick, strong = picking()
    colour = canvas.scales.colour(shapes)
    line = alt.Chart().mark_line(strokeWidth=1.8)
    line = line.encode(x=x, y=y, color=colour, strokeDash=canvas.scales.dash(shapes), opacity=strong)
    bars = alt.Chart().transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.2)
    low = y.copy()
    low["shorthand"] = "low:Q"
    bars = bars.encode(x=x, y=low, y2=alt.Y2("high:Q"), color=colour, opacity=strong)
    points = alt.Chart().mark_point(filled=True, size=40, opacity=1)
    points = points.encode(x=x, y=y, color=colour, shape=canvas.scales.marker(shapes), opacity=strong, tooltip=tooltip)
    return [bars, line, points.add_params(pick)]


def share_tips(by: str, of: str) -> list[Any]:
    """What a point of a share says: where it is, and over how many steps."""
    shares = [alt.Tooltip(f"{name}:Q", title=title, format=".4f")
              for name, title in (("rate", "share"), ("low", "95 % from"), ("high", "to"))]  # fmt: skip
    return [
        alt.Tooltip("shown:N", title="shape"),
        alt.Tooltip(f"{by}:Q"),
        *shares,
        alt.Tooltip(f"{of}:Q", format=",.0f"),
    ]


def text_panels(table: pd.DataFrame) -> pd.Series:
    """Of each row of a table that is kept beside a study's rows, the panel of its texts: the pair, the drafter where
    there are several, the temperature where texts are sampled."""
    panels = table["pair"].map(visible)
    if table["drafter"].nunique() > 1:
        panels += " · " + table["drafter"].map(visible)
    named: pd.Series = panels + table["temperature"].map(lambda value: "" if value == 0 else f" · T={value:g}")
    return named
