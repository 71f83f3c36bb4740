"""How figures look: colours that the colour-blind can tell apart (Okabe and Ito 2008, and two more), and a marker for
each shape."""

from __future__ import annotations

from typing import Any, Literal

import altair as alt

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#9A7D0A", "#7A5FD0", "#B24C63")
GREY = "#808080"
DASHES = ([1, 0], [7, 3], [2, 2])
MARKERS = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
PARTS = {
    "prefill": "#009E73",
    "drafting": "#0072B2",
    "pruning": "#CC79A7",
    "verifying": "#E69F00",
    "the rest": "#999999",
}
HEAT: Literal["cividis"] = "cividis"
INK = "#333333"  # of pictures; the page's style sheet recolours axes for light, dark and print
CONFIG: dict[str, Any] = {
    "font": "system-ui, 'Liberation Sans', Arial, sans-serif",
    "view": {"stroke": "#80808055"},
    "axis": {"labelColor": INK, "titleColor": INK, "gridColor": "#80808033", "domainColor": "#808080",
             "tickColor": "#808080", "labelFontSize": 11, "titleFontSize": 12,
             "titleFontWeight": "normal", "labelLimit": 220},
    "header": {"labelColor": INK, "labelFontSize": 13, "labelFontWeight": "bold", "titleColor": INK, "labelLimit": 420},
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "orient": "bottom",
               "labelLimit": 220, "symbolSize": 90, "symbolStrokeWidth": 2},
    "range": {"category": list(COLOURS)},
}  # fmt: skip


class ShapeScales:
    """One colour, dash and marker for each shape, the same in every figure; references are grey.

    Args:
        shapes: the most important first: the first nine have a colour of their own.
        references: the others.
    """

    def __init__(self, shapes: list[str], references: list[str]) -> None:
        self._of = {
            shape: (COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % 3], MARKERS[i % 8])
            for i, shape in enumerate(shapes)
        }
        self._of |= {shape: (GREY, [4, 4], "stroke") for shape in references}

    def scale(self, shapes: list[str], part: int = 0) -> alt.Scale:
        """Colours (part 0), dashes (1) or markers (2) of these shapes."""
        return alt.Scale(domain=shapes, range=[self._of[shape][part] for shape in shapes])

    def colour(self, shapes: list[str]) -> alt.Color:
        """The colour channel."""
        return alt.Color("shown:N", scale=self.scale(shapes), legend=_legend(shapes))

    def dash(self, shapes: list[str]) -> alt.StrokeDash:
        """The dash channel."""
        return alt.StrokeDash("shown:N", scale=self.scale(shapes, 1), legend=_legend(shapes))

    def marker(self, shapes: list[str]) -> alt.Shape:
        """The marker channel."""
        return alt.Shape("shown:N", scale=self.scale(shapes, 2), legend=_legend(shapes))


def _legend(shapes: list[str]) -> alt.Legend | None:
    """The same for every channel, so that they become one legend; none for a single shape."""
    return alt.Legend(title="shape (click to single out)", columns=6, symbolOpacity=1) if len(shapes) > 1 else None
