"""How figures look: colours that the colour-blind can tell apart (Okabe and Ito 2008), each shape with its own marker as well."""

from __future__ import annotations

from typing import Any

import altair as alt

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#9A7D0A")
GREY = "#808080"
DASHES = ([1, 0], [7, 3], [2, 2])
MARKERS = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
PARTS = ("#0072B2", "#E69F00", "#999999")  # drafting, verifying, the rest
HEAT = "cividis"
INK = "#333333"  # of pictures; the page's style sheet recolours axes for light, dark and print
CONFIG: dict[str, Any] = {
    "font": "system-ui, 'Liberation Sans', Arial, sans-serif",
    "view": {"stroke": "#80808055"},
    "axis": {"labelColor": INK, "titleColor": INK, "gridColor": "#80808033", "domainColor": "#808080", "tickColor": "#808080",
             "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 220},
    "header": {"labelColor": INK, "labelFontSize": 13, "labelFontWeight": "bold", "titleColor": INK, "labelLimit": 420},
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "orient": "bottom", "labelLimit": 220,
               "symbolSize": 90, "symbolStrokeWidth": 2},
    "range": {"category": list(COLOURS)},
}  # fmt: skip


class ShapeScales:
    """One colour, dash and marker for each shape, the same in every figure; references are grey."""

    def __init__(self, shapes: list[str], references: list[str]) -> None:
        self._of = {shape: (COLOURS[i % 7], DASHES[i // 7 % 3], MARKERS[i % 8]) for i, shape in enumerate(shapes)}
        self._of |= {shape: (GREY, [4, 4], "stroke") for shape in references}

    def _scale(self, shapes: list[str], part: int) -> alt.Scale:
        return alt.Scale(domain=shapes, range=[self._of[shape][part] for shape in shapes])

    def colour(self, shapes: list[str], columns: int = 6) -> alt.Color:
        """The colour channel."""
        legend = alt.Legend(title="shape (click to single out)", columns=columns) if len(shapes) > 1 else None
        return alt.Color("shown:N", scale=self._scale(shapes, 0), legend=legend)

    def dash(self, shapes: list[str]) -> alt.StrokeDash:
        """The dash channel."""
        return alt.StrokeDash("shown:N", scale=self._scale(shapes, 1), legend=None)

    def marker(self, shapes: list[str], columns: int = 6) -> alt.Shape:
        """The marker channel."""
        legend = alt.Legend(title="shape (click to single out)", columns=columns) if len(shapes) > 1 else None
        return alt.Shape("shown:N", scale=self._scale(shapes, 2), legend=legend)
