"""Methods side by side, as files: tables, `benchmark_results.json`, figures as pictures and as a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from specdraft.bench.method_tables import ALL, MethodTables
from specdraft.report.charts import charts_page, write_charts
from specdraft.report.figures.latency import PART_OF
from specdraft.report.theme import COLOURS, CONFIG, GREY, PARTS
from specdraft.results.files import check_folder_writable, csv_pieces, write_atomically

KINDS = {"plain": GREY, "specdraft": COLOURS[0], "transformers": COLOURS[1]}


@dataclass(frozen=True)
class MethodsReport:
    """A benchmark of methods, ready to be written.

    Attributes:
        facts: what was run, on what, and how sure it is.
    """

    tables: MethodTables
    facts: dict[str, Any]

    @cached_property
    def json(self) -> str:
        """`benchmark_results.json`."""
        summary, by_category = (_rows(table) for table in (self.tables.summary, self.tables.by_category))
        return (
            json.dumps(self.facts | {"summary": summary, "by_category": by_category}, indent=1, allow_nan=False) + "\n"
        )

    def write(self, folder: Path) -> None:
        """Write all files, each as a whole. Raises `ResultsError`."""
        check_folder_writable(folder)
        names = ("methods.csv", "summary.csv", "by_category.csv")
        for name, table in zip(names, self.tables, strict=True):
            write_atomically(folder / name, csv_pieces(table))
        write_atomically(folder / "benchmark_results.json", self.json)
        charts = self.charts()
        write_charts(folder, charts)
        write_atomically(folder / "methods.html", charts_page(f"Methods on {self.facts['target']}", charts))

    def charts(self) -> dict[str, dict[str, Any]]:
        """Name -> Vega-Lite specification, its data within."""
        drawn = self.tables.summary[(self.tables.summary["texts"] == ALL) & self.tables.summary["wall_s"].notna()]
        there = self.tables.by_category[self.tables.by_category["texts"] == ALL]
        both = alt.hconcat(_speedups(drawn), _times(drawn)).resolve_scale(color="independent")
        panels = _speedups(there, height=16).properties(width=150).facet(alt.Facet("category:N", title=None), columns=3)
        made = {"methods": both, "methods-by-category": panels}
        return {name: chart.configure(**CONFIG).to_dict() for name, chart in made.items()}


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows; None for what is not there, as JSON has no NaN."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=6))
    return rows


def _in_order(rows: pd.DataFrame) -> Any:
    """Methods from top to bottom: the same in panels that stand side by side, whatever each of them lacks."""
    return alt.Scale(domain=list(dict.fromkeys(rows["method"])))


def _speedups(rows: pd.DataFrame, height: int = 24) -> Any:
    """Bars from plain decoding on, with their intervals."""
    data = rows.to_json(orient="records")
    base = alt.Chart(alt.InlineData(values=json.loads(data))).properties(height=alt.Step(height), width=360)
    y = alt.Y("method:N", scale=_in_order(rows), title=None)
    colour = alt.Color("kind:N", title="decoded by", scale=alt.Scale(domain=[*KINDS], range=[*KINDS.values()]))
    points = base.mark_point(filled=True, size=70).encode(
        x=alt.X("speedup:Q", title="speed-up over plain decoding", scale=alt.Scale(zero=False)),
        y=y,
        color=colour,
        tooltip=["method:N", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in TOLD)],
    )
    ends = base.mark_rule(strokeWidth=2).encode(x="speedup_lo:Q", x2="speedup_hi:Q", y=y, color=colour)
    one = base.mark_rule(strokeDash=[3, 3], color=GREY).encode(x=alt.datum(1))
    return alt.layer(one, ends, points)


TOLD = ("speedup", "speedup_lo", "speedup_hi", "tokens_per_s", "acceptance_rate", "block_efficiency", "loop_share")


def _times(rows: pd.DataFrame) -> Any:
    """Milliseconds per new token, by what they are spent on."""
    parts = {name: part for name, part in PART_OF.items() if rows[name].notna().any()}
    table = pd.DataFrame({part: 1000 * rows[name] / rows["new_tokens"] for name, part in parts.items()})
    table["all of it"] = (1000 * rows["wall_s"] / rows["new_tokens"]).where(table.isna().all(axis=1))
    long = table.assign(method=rows["method"]).melt("method", var_name="part", value_name="ms").dropna()
    domain = [*parts.values(), "all of it"]
    scale = alt.Scale(domain=domain, range=[*(PARTS[part] for part in parts.values()), GREY])
    rows_of_parts: Any = long.to_dict("records")
    return (
        alt.Chart(alt.InlineData(values=rows_of_parts))
        .mark_bar()
        .encode(
            y=alt.Y("method:N", scale=_in_order(rows), title=None, axis=alt.Axis(labels=False)),
            x=alt.X("sum(ms):Q", title="time per new token (ms)"),
            color=alt.Color("part:N", title="time for", scale=scale),
            tooltip=["method:N", "part:N", alt.Tooltip("sum(ms):Q", format=".2f")],
        )
        .properties(height=alt.Step(24), width=240)
    )
