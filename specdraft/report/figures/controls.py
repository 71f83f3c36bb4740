"""What a page can ask of a figure: parameters of its specification by the names of what differs within a study.

A parameter that is null draws what the figure shows by itself; `view.signal("pair", "zoo")` draws that pair only.
`usermeta.controls` of a specification lists each parameter with its values, `usermeta.metric` what a figure of a metric
is of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from specdraft.report.figures.base import Figure
from specdraft.report.figures.canvas import Canvas
from specdraft.report.study_files import panel_label, visible

OF_PANEL = ("pair", "drafter", "setting")
BUDGET, HEADLINE, CATEGORY = "budget", "headline", "category"
AT_BUDGET = {"text": {"expr": "budget === null ? '' : 'at a node budget of ' + budget"}, "anchor": "start",
             "fontSize": 12, "fontWeight": "normal"}  # fmt: skip


def controlled(figure: Figure, canvas: Canvas, metrics: Collection[str] = ()) -> Figure:
    """A figure with parameters for pair, drafter, setting, budget and category where its tables differ in these.

    Args:
        figure: left as it is where there is nothing to choose.
        canvas: what it is drawn from.
        metrics: those that have figures of their own, named after them.
    """
    if figure.spec is None:
        return figure
    parts = _parts(canvas)
    tables = {name: _with_parts(table, parts) for name, table in figure.tables.items()}
    choices = _choices(tables.values())
    about: dict[str, Any] = {"controls": choices} if choices else {}
    metric = figure.name.replace("-", "_")
    about |= {"metric": metric} if metric in metrics else {}
    if not about:
        return figure
    spec = figure.spec | {"usermeta": about}
    if choices:
        parameters = [*spec.get("params", []), *({"name": name, "value": None} for name in choices)]
        chosen = [{"filter": _filter(name)} for name in choices]
        spec |= {"params": parameters, "transform": [*chosen, *spec.get("transform", [])]}
    spec |= {"title": AT_BUDGET} if BUDGET in choices else {}
    return replace(figure, spec=spec, tables=tables)


def _filter(name: str) -> str:
    if name == BUDGET:
        return f"{BUDGET} === null ? datum.{HEADLINE} : datum.{BUDGET} === {BUDGET}"
    return f"{name} === null || datum.{name} === {name}"


def _choices(tables: Iterable[pd.DataFrame]) -> dict[str, list[Any]]:
    """Parameter -> its values, where there are several."""
    found: dict[str, dict[Any, None]] = {}
    for table in tables:
        names = [*OF_PANEL, CATEGORY, *([BUDGET] if HEADLINE in table else [])]
        for name in [name for name in names if name in table]:
            found[name] = found.get(name, {}) | dict.fromkeys(table[name].tolist())
    several = {name: [*values] for name, values in found.items() if len(values) > 1}
    return {name: sorted(values) if name == BUDGET else values for name, values in several.items()}


def _parts(canvas: Canvas) -> pd.DataFrame:
    """Panel -> pair, drafter and what else it holds, of which only what differs."""
    varying = [key for key in canvas.findings.study.varying if key != "drafter"]
    rows = canvas.rows.drop_duplicates("panel")
    keys = rows[varying].astype(str).itertuples(index=False, name=None)
    labels = [panel_label({"pair": ""} | dict(zip(varying, values, strict=True)), varying) for values in keys]
    settings = [label.removeprefix(" · ") for label in labels]
    drafters = rows["drafter"].map(visible) if "drafter" in rows else ""
    parts = pd.DataFrame({"pair": rows["pair"].map(visible), "drafter": drafters, "setting": settings})
    return parts.set_axis(pd.Index(rows["panel"])).loc[:, lambda table: table.nunique() > 1]


def _with_parts(table: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
    """A table with the parts of its panels; as it is where it has others than the study's."""
    if "panel" not in table or not table["panel"].isin(parts.index).all():
        return table
    own = [name for name in OF_PANEL if name in parts and name not in table]
    return table.assign(**{name: table["panel"].map(parts[name]) for name in own})
