"""The charts of the course report: a few kinds, whose words are handed in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.marks import ShapeScales
from specdraft.report.theme import COLOURS, CONFIG, DASHES, GREY, HEAT

PANEL = {1: 520, 2: 330, 3: 230, 4: 230}
SHAPE = re.compile(r"\w+?(?=\W|$)", re.ASCII)  # a shape's name at the start of a line's
SHAPES = ("chain", "kary", "branching", "beam", "wide", "sequoia", "best_first")  # each its own colour
REFERENCES = ("hindsight",)  # grey
LABELS = 96  # pixels for the names of rows, whatever font they come in
NODE, LEVEL = 17, 20  # pixels between leaves and between depths of a drawn tree


class Scales:
    """Colours, dashes and markers of the lines of a figure: a shape has its own colour and marker; what else a line's
    name says after the shape's is in the dash."""

    def __init__(self, names: Sequence[str], title: str) -> None:
        self._names, self._title = list(names), title
        shapes = [SHAPE.match(name) for name in names]
        self._shapes = [
            match.group() if match and match.group() in (*SHAPES, *REFERENCES) else SHAPES[0] for match in shapes
        ]
        self._dashed = len(set(self._shapes)) < len(self._names)
        self._of = ShapeScales(list(SHAPES), list(REFERENCES))

    def _legend(self) -> alt.Legend | None:
        if len(self._names) < 2:
            return None
        lines: dict[str, Any] = {"symbolType": "stroke", "symbolSize": 700} if self._dashed else {}
        return alt.Legend(title=self._title, columns=6, columnPadding=22, **lines)

    def _scale(self, part: int) -> alt.Scale:
        """Of colours (0) or markers (1)."""
        found = self._of.scale(self._shapes, part).to_dict()["range"]
        return alt.Scale(domain=self._names, range=found)

    @property
    def colour(self) -> alt.Color:
        """The colour channel."""
        return alt.Color("series:N", scale=self._scale(0), legend=self._legend(), sort=self._names)

    @property
    def marker(self) -> alt.Shape:
        """The marker channel."""
        return alt.Shape("series:N", scale=self._scale(1), legend=self._legend(), sort=self._names)

    @property
    def markers(self) -> dict[str, Any]:
        """The marker channel by its name; none where the legend has to show dashes."""
        return {} if self._dashed else {"shape": self.marker}

    @property
    def dash(self) -> alt.StrokeDash:
        """The dash channel: the second line of a shape is dashed."""
        before = [self._shapes[:place].count(shape) for place, shape in enumerate(self._shapes)]
        scale = alt.Scale(domain=self._names, range=[DASHES[count % len(DASHES)] for count in before])
        return alt.StrokeDash("series:N", scale=scale, legend=self._legend(), sort=self._names)


def curves(
    table: pd.DataFrame, x: str, y: str, series: str, font: str, log: bool = True, rule: float | None = None
) -> dict[str, Any]:
    """Lines with 95 % bars over `at`, a panel for each `panel`.

    Args:
        table: columns `panel`, `series`, `at`, `value`, `low`, `high`.
        x, y, series: titles of the axes and of the legend.
        log: `at` doubles.
        rule: a value to compare with.
    """
    scales = Scales(list(dict.fromkeys(table["series"])), series)
    marks = sorted({at for at in table["at"] if not log or int(at).bit_count() == 1})
    axis = alt.Axis(values=marks, format="d", grid=False)
    scale = alt.Scale(type="log", base=2, padding=8) if log else alt.Scale(zero=False, nice=False, padding=8)
    base = alt.Chart().encode(x=alt.X("at:Q", title=x, axis=axis, scale=scale), color=scales.colour)
    value = alt.Y("value:Q", title=y, scale=alt.Scale(zero=False))
    bars = base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q", title=y), y2="high:Q")
    layers = [bars, base.mark_line(strokeWidth=1.6).encode(y=value, strokeDash=scales.dash),
              base.mark_point(filled=True, size=38, opacity=1).encode(y=value, **scales.markers)]  # fmt: skip
    return _panels(([] if rule is None else [_rule(rule)]) + layers, table, font)


def dots(table: pd.DataFrame, x: str, series: str, font: str, rule: float | None = None) -> dict[str, Any]:
    """Points with 95 % bars along x, a row for each `row`, a panel for each `panel`."""
    names = list(dict.fromkeys(table["series"]))
    scales = Scales(names, series)
    rows = list(dict.fromkeys(table["row"]))
    apart = alt.YOffset("series:N", sort=names) if len(names) > 1 else alt.YOffset()
    base = alt.Chart().encode(
        y=alt.Y("row:N", title=None, sort=rows, axis=alt.Axis(minExtent=LABELS)), color=scales.colour
    )
    base = base.encode(yOffset=apart) if len(names) > 1 else base
    bars = base.mark_rule(strokeWidth=1.8).encode(x=alt.X("low:Q", title=x, scale=alt.Scale(zero=False)), x2="high:Q")
    points = base.mark_point(filled=True, size=45, opacity=1).encode(x=alt.X("value:Q", title=x), shape=scales.marker)
    most = int(table.groupby("panel")["row"].nunique().max())
    height = max(70, most * (10 + 11 * len(names)))
    layers = ([] if rule is None else [_rule(rule, across=False)]) + [bars, points]
    return _panels(layers, table, font, height, own_rows=most < len(rows))


def trees(nodes: pd.DataFrame, edges: pd.DataFrame, colour: str, font: str) -> dict[str, Any]:
    """Trees from the root down, a panel each; a node is as dark as the share of steps that accept it.

    Args:
        nodes: columns `panel`, `x`, `y`, `weight`; edges: `panel`, `x`, `y`, `x2`, `y2`.
    """
    data = pd.concat([edges.assign(kind="edge"), nodes.assign(kind="node")], ignore_index=True)
    wide, deep = float(data["x"].abs().max()), float(data["y"].max())
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-wide - 0.6, wide + 0.6]))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[deep + 0.4, -0.4]))
    lines = alt.Chart().mark_rule(color=GREY, strokeWidth=1.2).transform_filter("datum.kind == 'edge'")
    lines = lines.encode(x=x, y=y, x2="x2", y2="y2")
    shade = alt.Color("weight:Q", title=colour, scale=alt.Scale(scheme=HEAT, domain=[0, 1], reverse=True))
    points = alt.Chart().mark_circle(size=95, opacity=1, stroke="#444444", strokeWidth=0.7)
    points = points.transform_filter("datum.kind == 'node'").encode(x=x, y=y, color=shade)
    size: dict[str, Any] = {"width": max(120, int(NODE * (2 * wide + 1.2))), "height": int(LEVEL * (deep + 0.8))}
    return _drawn(alt.layer(lines, points), data, font, columns=4, **size)


def timings(table: pd.DataFrame, labels: dict[str, str], font: str) -> dict[str, Any]:
    """Milliseconds over draft nodes, a column for each context, a row for each batch.

    Args:
        table: columns `nodes`, `ms`, `low`, `high`, `contestant`, `context`, `batch`.
        labels: of `nodes`, `ms`, `contestant`, `context`, `batch`.
    """
    names = list(dict.fromkeys(table["contestant"]))
    scale = alt.Scale(domain=names, range=[GREY, *COLOURS][: len(names)])
    axis = alt.Axis(values=sorted(set(table["nodes"])), format="d", grid=False)
    x = alt.X("nodes:Q", title=labels["nodes"], axis=axis, scale=alt.Scale(type="log", base=2, padding=8))
    base = alt.Chart().encode(x=x, color=alt.Color("contestant:N", title=labels["contestant"], scale=scale))
    scale_ms = alt.Scale(type="log", nice=False, padding=8)
    y = alt.Y("ms:Q", title=labels["ms"], scale=scale_ms, axis=alt.Axis(tickCount=4, grid=False))
    layers = [base.mark_rule().encode(y=alt.Y("low:Q", title=labels["ms"]), y2="high:Q"), base.mark_line().encode(y=y),
              base.mark_point(filled=True, size=38, opacity=1).encode(y=y)]  # fmt: skip
    chart = alt.layer(*layers, data=_data(table)).properties(width=210, height=150)
    faceted = chart.facet(
        column=alt.Column("context:O", title=labels["context"]), row=alt.Row("batch:O", title=labels["batch"])
    )
    return _configured(faceted, font)


def _rule(value: float, across: bool = True) -> Any:
    at = alt.Y(datum=value) if across else alt.X(datum=value)
    return alt.Chart().mark_rule(strokeDash=[3, 3], color=GREY).encode(**{"y" if across else "x": at})


def _panels(
    layers: Sequence[Any], table: pd.DataFrame, font: str, height: int = 190, own_rows: bool = False
) -> dict[str, Any]:
    """`own_rows`: panels differ in what stands along y."""
    count = table["panel"].nunique()
    columns = 2 if count == 4 else 3
    return _drawn(alt.layer(*layers), table, font, columns, PANEL.get(min(count, 4), 230), height, own_rows)


def _drawn(
    layers: Any, table: pd.DataFrame, font: str, columns: int, width: int, height: int, own_rows: bool = False
) -> dict[str, Any]:
    layers.data = _data(table)
    panels = list(dict.fromkeys(table["panel"]))
    sized = layers.properties(width=width, height=height)
    header = alt.Header(labelLimit=width + 40)
    faceted = sized.facet(facet=alt.Facet("panel:N", title=None, sort=panels, header=header), columns=columns)
    return _configured(faceted.resolve_scale(y="independent", yOffset="independent") if own_rows else faceted, font)


def _data(table: pd.DataFrame) -> alt.InlineData:
    rows: Any = table.astype(object).where(table.notna(), None).to_dict("records")
    return alt.InlineData(values=rows)


def _configured(chart: Any, font: str) -> dict[str, Any]:
    made: dict[str, Any] = chart.configure(**CONFIG | {"font": font}).to_dict()
    return made
