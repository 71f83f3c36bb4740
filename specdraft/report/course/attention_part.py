"""Tree attention in the course report: time over batch, context and draft nodes, from `specdraft bench attention`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from specdraft.report.attention import AttentionReport
from specdraft.report.attention_findings import BASE, OF_TREES
from specdraft.report.course.blocks import Chart, Grid
from specdraft.report.course.catalogue import Catalogue
from specdraft.report.course.drawings import timings
from specdraft.report.words import Name, Text
from specdraft.results.intervals import number

TABLE = "attention/attention.csv"
SHAPES = ("kary", "wide", "chain")  # the first that was measured is drawn
CELL = ["batch", "context", "nodes"]
LABELS = ("nodes", "ms", "contestant", "context", "batch")


class AttentionPart:
    """What the paper says of a benchmark of tree attention.

    Attributes:
        shape, geometry: the ones that are drawn.
    """

    def __init__(self, report: AttentionReport, texts: Catalogue) -> None:
        self._report, self._texts = report, texts
        there = set(report.timed["shape"])
        self.shape = next(shape for shape in (*SHAPES, *sorted(there)) if shape in there)
        self.geometry = str(report.timed["geometry"].iloc[0])

    @property
    def _rows(self) -> pd.DataFrame:
        timed = self._report.timed
        rows = timed[(timed["geometry"] == self.geometry) & (timed["shape"] == self.shape)]
        half = rows["median_s"] * rows["spread"] / 2
        scaled = {"ms": rows["median_s"], "low": rows["median_s"] - half, "high": rows["median_s"] + half}
        timed_ms: pd.DataFrame = rows.assign(**{name: 1000 * seconds for name, seconds in scaled.items()})
        return timed_ms

    @property
    def chart(self) -> Chart:
        """Time over nodes, a panel for each batch and context."""
        texts = self._texts
        labels = {name: texts.label(f"attention.{name}") for name in LABELS}
        table = self._rows[["nodes", "ms", "low", "high", "contestant", "context", "batch"]]
        facts = self._report.facts
        caption = texts.say("attention.caption", geometry=Name(self.geometry), shape=Name(self.shape),
                            where=_machine(str(facts["where"])), dtype=str(facts["dtype"]))  # fmt: skip
        spec = timings(table, labels, str(texts.of("font")))
        return Chart("attention", texts.label("attention.figure"), caption, spec, TABLE)

    @property
    def grid(self) -> Grid:
        """Milliseconds of every cell, each with the quartiles' distance."""
        rows = self._rows
        who = list(dict.fromkeys(rows["contestant"]))
        listed: list[list[Text]] = []
        for _, cell in rows.groupby(CELL, sort=True):
            at = (int(cell[name].iloc[0]) for name in CELL)
            times = {str(one["contestant"]): _time(one) for one in cell.to_dict("records")}
            listed.append([*((f"{value:,}",) for value in at), *((times.get(name, "–"),) for name in who)])
        columns = [*(self._texts.label(f"attention.{name}") for name in CELL), *who]
        title = self._texts.label("attention.table", geometry=self.geometry, shape=self.shape)
        return Grid(title, columns, listed, TABLE, self._texts.say("attention.note"))

    def sentences(self) -> Iterator[Text]:
        """How trees compare with their paths one after another, and with one query."""
        rows, texts = self._rows, self._texts
        quick = rows[rows["contestant"].isin(OF_TREES)].sort_values("median_s").drop_duplicates(CELL)
        beside = rows[rows["contestant"] == BASE].merge(quick, on=CELL, suffixes=("", "_quick"))
        if beside.empty:
            return
        ratios = beside["median_s"] / beside["median_s_quick"]
        yield texts.say("attention.speed", base=Name(BASE), cells=len(beside), faster=int((ratios > 1).sum()),
                        least=number(float(ratios.min())), most=number(float(ratios.max())),
                        middle=number(float(ratios.median())))  # fmt: skip
        prices = quick[quick["nodes"] == quick["nodes"].max()]["price"]
        yield texts.say("attention.price", nodes=int(quick["nodes"].max()), low=number(float(prices.min())),
                        high=number(float(prices.max())))  # fmt: skip


def _machine(where: str) -> str:
    """`a CPU (AMD EPYC, 1 thread)` -> `AMD EPYC`: what every language can say."""
    return where.partition("(")[2].rstrip(")").partition(",")[0] or where


def _time(one: dict[Any, Any]) -> str:
    return f"{one['ms']:.3g} ± {(one['high'] - one['ms']):.2g}"
