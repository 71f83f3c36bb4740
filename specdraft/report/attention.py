"""Tree attention as files: a table, facts, figures, and what they show in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from specdraft.errors import ResultsError
from specdraft.report.attention_findings import BASE, CELL, findings, with_ratios
from specdraft.report.charts import PICTURES, charts_page, write_charts
from specdraft.report.markdown import escaped, paragraphs
from specdraft.report.theme import COLOURS, CONFIG, DASHES, GREY
from specdraft.report.words import Text
from specdraft.results.files import check_folder_writable, csv_pieces, write_atomically
from specdraft.results.intervals import number

TABLE, FACTS, WORDS, PAGE = "attention.csv", "attention.json", "attention.md", "attention.html"
CONTESTANTS = (BASE, "expanded", "dense", "merged", "grouped", "flex", "triton", "flashinfer")
PLACED = (*CELL, "leaves", "contestant")
MEASURED = ("median_s", "spread", "price", "speedup", "copy_share")
COLOUR_OF = dict(zip(CONTESTANTS, (GREY, *COLOURS), strict=False))


@dataclass(frozen=True)
class AttentionReport:
    """A benchmark of tree attention, ready to be written.

    Attributes:
        rows: see `bench.attention.Row`.
        facts: what was run, on what.
    """

    rows: pd.DataFrame
    facts: dict[str, Any]

    @property
    def title(self) -> str:
        """What it is, and where it ran."""
        return f"Tree attention on {self.facts['where']}, {self.facts['dtype']}"

    @cached_property
    def findings(self) -> list[Text]:
        """What it shows."""
        return list(findings(self.rows, self.facts))

    @cached_property
    def timed(self) -> pd.DataFrame:
        """What was timed, with its ratios."""
        return with_ratios(self.rows)

    @property
    def json(self) -> str:
        """The facts and all rows."""
        rows = json.loads(self.rows.to_json(orient="records", double_precision=9))
        return json.dumps(self.facts | {"rows": rows}, indent=1, allow_nan=False) + "\n"

    def write(self, folder: Path) -> None:
        """Write all files, each as a whole. Raises `ResultsError`."""
        check_folder_writable(folder)
        write_atomically(folder / TABLE, csv_pieces(self.rows))
        write_atomically(folder / FACTS, json.dumps(self.facts, indent=1, allow_nan=False) + "\n")
        charts = self.charts
        write_charts(folder, charts)
        pictures = [f"{PICTURES}/{name}.png" for name in charts]
        write_atomically(folder / WORDS, "\n".join(self.markdown(pictures)) + "\n")
        write_atomically(folder / PAGE, charts_page(self.title, charts, self.findings))

    def markdown(self, pictures: Sequence[str], level: int = 1) -> Iterator[str]:
        """Lines: figures, what they show, and the speed-ups of the largest cells as a table.

        Args:
            pictures: where they are, seen from the page.
            level: of the heading.
        """
        yield from ("#" * level + " " + escaped(self.title), "")
        for picture in pictures:
            yield from (f"![{escaped(self.title)}](<{picture}>)", "")
        yield from paragraphs(self.findings)
        yield from speedup_table(self.timed)

    @cached_property
    def charts(self) -> dict[str, dict[str, Any]]:
        """Name -> Vega-Lite specification, its data within; for each geometry."""
        made = {}
        for geometry, rows in self.timed.groupby("geometry", sort=False):
            about = f"{geometry}: {self.title}"
            made[f"price-{geometry}"] = _drawn(_prices(rows), about)
            if rows["speedup"].notna().any():
                made[f"speedup-{geometry}"] = _drawn(_speedups(rows), about)
            if (rows["device"] == "cuda").any():
                made[f"bandwidth-{geometry}"] = _drawn(_bandwidth(rows), about)
        return made


def read_attention(folder: Path) -> AttentionReport:
    """What `write` wrote. Raises `ResultsError`."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return AttentionReport(pd.read_csv(folder / TABLE), facts)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{folder}: not a benchmark of tree attention: {error}") from error


def speedup_table(timed: pd.DataFrame) -> list[str]:
    """Speed-up over `sequential`, a row for each tree at the largest batch and context of its geometry."""
    keys = ["geometry", "batch", "context"]
    most = timed.groupby("geometry")[["batch", "context"]].transform("max")
    rows = timed[(timed[["batch", "context"]] == most).all(axis=1) & timed["speedup"].notna()]
    if rows.empty:
        return []
    who = [name for name in CONTESTANTS if name in set(rows["contestant"]) and name != BASE]
    wide = rows.pivot_table(
        index=[*keys, "nodes", "shape", "leaves"], columns="contestant", values="speedup", sort=False
    )
    columns = [*wide.index.names, *who]
    lines = [
        "Times as fast as `sequential`:",
        "",
        f"| {' | '.join(map(str, columns))} |",
        f"|{' --- |' * len(columns)}",
    ]
    for at, values in zip(wide.index, wide[who].to_numpy(), strict=True):
        cells = [*(escaped(str(value)) for value in at), *map(number, values)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _drawn(chart: Any, title: str) -> dict[str, Any]:
    drawn: dict[str, Any] = chart.properties(title=title).configure(**CONFIG).to_dict()
    return drawn


def _prices(rows: pd.DataFrame) -> Any:
    y = alt.Y("price:Q", title="time / time of one query", scale=alt.Scale(type="log"))
    return _curves(rows, _doubling(rows, "nodes", "draft nodes"), y)


def _speedups(rows: pd.DataFrame) -> Any:
    """Dashed: as many times as fast as there are leaves."""
    rows = rows[(rows["contestant"] != BASE) & rows["speedup"].notna()]
    x = _doubling(rows, "leaves", "leaves")
    y = alt.Y("speedup:Q", title=f"times as fast as {BASE}", scale=alt.Scale(type="log"))
    ideal = alt.Chart().mark_line(strokeDash=[2, 3], color=GREY).encode(x=x, y=alt.Y("leaves:Q"))
    return _curves(rows, x, y, lines=False, below=[ideal])


def _bandwidth(rows: pd.DataFrame) -> Any:
    y = alt.Y("copy_share:Q", title="share of a large copy's bandwidth", axis=alt.Axis(format="%"))
    return _curves(rows, _doubling(rows, "nodes", "draft nodes"), y)


def _doubling(rows: pd.DataFrame, name: str, title: str) -> Any:
    """An axis on which what doubles is equally far apart, with a mark for every value."""
    axis = alt.Axis(values=sorted(set(rows[name])), labelOverlap="greedy", labelSeparation=4)
    return alt.X(f"{name}:Q", title=title, scale=alt.Scale(type="log", base=2), axis=axis)


def _curves(rows: pd.DataFrame, x: Any, y: Any, lines: bool = True, below: Sequence[Any] = ()) -> Any:
    """A panel for each batch and context; colours are contestants, markers and dashes are shapes."""
    there = [name for name in CONTESTANTS if name in set(rows["contestant"])]
    shapes = list(dict.fromkeys(rows["shape"]))
    colour = alt.Color(
        "contestant:N", title="contestant", scale=alt.Scale(domain=there, range=[COLOUR_OF[name] for name in there])
    )
    base = alt.Chart().encode(x=x, y=y, color=colour)
    points = base.mark_point(filled=True, size=45, opacity=0.9).encode(
        shape=alt.Shape("shape:N", title="tree", scale=alt.Scale(domain=shapes)),
        tooltip=[*(f"{name}:N" for name in PLACED), *(alt.Tooltip(f"{name}:Q", format=".3g") for name in MEASURED)],
    )
    dashes = alt.StrokeDash("shape:N", title="tree", scale=alt.Scale(domain=shapes, range=_dashes(len(shapes))))
    curves = [base.mark_line(strokeWidth=1.5).encode(strokeDash=dashes)] if lines else []
    values = json.loads(rows[[*PLACED, *MEASURED]].to_json(orient="records", double_precision=9))
    layers = alt.layer(*below, *curves, points, data=alt.InlineData(values=values))
    return layers.properties(width=250, height=200).facet(
        column=alt.Column("context:O", title="context"), row=alt.Row("batch:O", title="batch")
    )


def _dashes(count: int) -> list[list[int]]:
    return [DASHES[number % len(DASHES)] for number in range(count)]
