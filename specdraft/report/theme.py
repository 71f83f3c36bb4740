"""How figures look: colours that the colour-blind can tell apart, and what Vega is told of axes and legends."""

from __future__ import annotations

from typing import Any, Literal

COLOURS = (  # apart for the colour-blind too, visible on white and on dark (tests/report/test_marks.py)
    "#4B78FF",
    "#C32D00",
    "#7800FF",
    "#FF870F",
    "#3CB469",
    "#A50FA5",
    "#A596F0",
    "#874B78",
    "#C396B4",
    "#4B694B",
)
GREY = "#808080"
DASHES = ([1, 0], [7, 3], [2, 2])
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
