"""The figure of `specdraft tune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import pandas as pd

from specdraft.report.theme import CONFIG
from specdraft.viewer.tune_tables import short_names

if TYPE_CHECKING:
    from specdraft.study.tuning.answer import Tuned

MOST = 20
WIDEST = 420  # pixels of a name


def speed_chart(tuned: Tuned) -> dict[str, Any]:
    """The fastest candidates' estimated speed over plain decoding, with intervals: a Vega-Lite specification."""
    names = short_names(tuned.candidates)
    rows = pd.DataFrame(
        [
            {
                "setting": names[one.identifier],
                "speedup": one.speedup.value,
                "low": one.speedup.low,
                "high": one.speedup.high,
                "shape": "chain" if one.setting.chain else "tree",
            }
            for one in tuned.candidates[:MOST]
        ]
    )
    y = alt.Y("setting:N", title=None, sort=list(rows["setting"]), axis=alt.Axis(labelLimit=WIDEST))
    scale = alt.Scale(zero=False)
    colour = alt.Color("shape:N", title=None)
    base = alt.Chart(rows)
    span = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", scale=scale, title="estimated speed / plain decoding"), x2="high:Q", y=y, color=colour
    )
    point = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X("speedup:Q", scale=scale), y=y, color=colour, shape=alt.Shape("shape:N", legend=None)
    )
    one = base.mark_rule(color="#808080", strokeDash=[4, 3]).encode(x=alt.datum(1))
    spec: dict[str, Any] = (one + span + point).properties(width=420).configure(**CONFIG).to_dict()
    return spec
