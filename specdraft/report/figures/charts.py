"""Pieces of charts that several figures have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import altair as alt

from specdraft.report.theme import GREY

CLOSE = 1.25  # two ticks of a logarithmic axis
COLUMNS = 3  # panels in a row
TEXT = {"panel", "pair", "setting", "shown"}
METRIC_TITLES = {
    "block_efficiency": "block efficiency (tokens per step)",
    "acceptance_length": "acceptance length (tokens per step)",
    "acceptance_rate": "acceptance rate (share of drafted)",
    "est_speedup": "ESTIMATED speed-up (times plain)",
    "speedup": "measured speed-up (times plain)",
}


def tips(columns: Iterable[str]) -> list[alt.Tooltip]:
    """Tooltips of columns."""
    return [
        alt.Tooltip(f"{column}:{'N' if column in TEXT else 'Q'}", title=column.replace("_", " ")) for column in columns
    ]


def interval_tips(metric: str) -> list[alt.Tooltip]:
    """What a point says of a ratio and its interval."""
    of = ((metric, metric.replace("_", " ")), (f"{metric}_lo", "95 % from"), (f"{metric}_hi", "to"))
    return [alt.Tooltip(f"{name}:Q", title=title) for name, title in of]


def picking() -> tuple[Any, Any]:
    """A selection of shapes by a click on the legend, and the opacity of what is and is not picked."""
    pick = alt.selection_point(name="pick", fields=["shown"], bind="legend")
    return pick, opacity(alt.condition(pick, alt.value(1), alt.value(0.08)))


def opacity(condition: Any) -> alt.OpacityValue:
    """What `alt.condition` gives as a channel: Altair looks a long time for the class of a dictionary or a string."""
    return alt.OpacityValue(**condition)


def filled_where(chart: Any, test: str, colours: alt.Scale) -> Any:
    """Points of `shown` that are filled where a test of Vega's holds, and hollow elsewhere."""
    inside, round_it = (of("shown:N", scale=colours, legend=None) for of in (alt.Fill, alt.Stroke))
    hollow: Any = alt.condition(test, alt.value(1), alt.value(0))
    points = chart.mark_point(filled=True, size=55, strokeWidth=1.8, opacity=1)
    return points.encode(fill=inside, stroke=round_it, fillOpacity=alt.FillOpacityValue(**hollow))


def dashed(chart: Any) -> Any:
    """A line to compare with."""
    return chart.mark_rule(strokeDash=[3, 3], color=GREY)


def ticks(budgets: Iterable[int]) -> list[int]:
    """Budgets to name on a logarithmic axis, largest first, none too close to another."""
    kept: list[int] = []
    for budget in sorted(budgets, reverse=True):
        if not kept or kept[-1] / budget > CLOSE:
            kept.append(budget)
    return kept[::-1]


def evenly(deepest: int) -> list[int]:
    """Whole numbers to name on an axis, so that they do not touch."""
    if deepest <= 10:
        return list(range(1, deepest + 1))
    return [1, 3, 5, 7, 10, *range(15, 40, 5), *range(40, deepest + 1, 20)]


def width(panels: int) -> int:
    """Of one panel, in pixels."""
    return {1: 620, 2: 400}.get(panels, 270)


def facet(chart: Any, data: alt.NamedData, panels: list[str], height: int) -> Any:
    """One panel per setting, `COLUMNS` in a row."""
    sized = chart.properties(width=width(len(panels)), height=height)
    sized.data = data
    rows = sized.facet(facet=alt.Facet("panel:N", title=None, sort=panels), columns=COLUMNS)
    ragged = len(panels) > COLUMNS and len(panels) % COLUMNS  # shared axes would stand below the empty places too
    return rows.resolve_axis(x="independent") if ragged else rows
