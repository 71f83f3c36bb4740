"""What an analysis of the course report is, and what several of them do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from specdraft.report.course.blocks import Chart, Grid
from specdraft.report.course.catalogue import Catalogue
from specdraft.report.course.measures import Measures, Setting
from specdraft.report.words import Name, Text
from specdraft.results.intervals import Interval, number

RECORDS = "records.csv"
AT, FAR = 8, 32  # nodes: where most is compared; the largest budget
MIXED, FITTED = "kary", "sequoia"


@dataclass(frozen=True)
class Analysis:
    """What one question found.

    Attributes:
        key: its chapter of the catalogue.
        sentences: of the first pair, then of all pairs.
        holds: pair -> whether what the catalogue explains is so with it; empty where that is so by definition.
    """

    key: str
    sentences: list[Text]
    holds: dict[str, bool]
    chart: Chart
    grid: Grid

    @property
    def exceptions(self) -> list[str]:
        """The pairs with which it is not so."""
        return [pair for pair, holds in self.holds.items() if not holds]

    @property
    def common(self) -> bool:
        """It is so with more pairs than not."""
        return 2 * len(self.exceptions) < max(1, len(self.holds))


@dataclass(frozen=True)
class Asked:
    """What an analysis is made from."""

    measures: Measures
    texts: Catalogue

    def made(
        self,
        key: str,
        sentences: Sequence[Text],
        holds: dict[str, bool],
        spec: dict[str, Any],
        rows: dict[str, list[Text]],
    ) -> Analysis:
        """An analysis with the titles, caption and columns of its chapter; `rows` by pair."""
        texts = self.texts
        chart = Chart(key, texts.label(f"{key}.figure"), texts.say(f"{key}.caption"), spec, RECORDS)
        columns = [texts.of("pair"), *texts.of(f"{key}.columns")]
        grid = Grid(
            texts.label(f"{key}.table"), columns, [((Name(name),), *cells) for name, cells in rows.items()], RECORDS
        )
        return Analysis(key, list(sentences), holds, chart, grid)

    def label(self, key: str) -> str:
        """A text of the catalogue."""
        return self.texts.label(key)

    @property
    def font(self) -> str:
        """Of figures."""
        return str(self.texts.of("font"))

    def pairs_with(self, *wanted: Callable[[str], Setting]) -> list[str]:
        """The pairs that have all of these settings."""
        return [pair for pair in self.measures.pairs if self.measures.has(*(of(pair) for of in wanted))]


def at(tree: str, budget: int, acceptance: str = "greedy", temperature: float = 0.0) -> Callable[[str], Setting]:
    """A pair's setting."""
    return lambda pair: Setting(pair, tree, budget, acceptance, temperature)


def added_by_nodes(measures: Measures, like: Setting, single: bool = False) -> Iterator[tuple[int, Interval]]:
    """Budget -> accepted tokens that each node since the budget before adds; `single`: while budgets follow on one
    another."""
    budgets = measures.budgets(like)
    yield budgets[0], measures.ratio(like._replace(budget=budgets[0]), "acceptance_length")
    for before, budget in pairwise(budgets):
        if single and budget != before + 1:
            return
        one, other = like._replace(budget=budget), like._replace(budget=before)
        yield budget, measures.difference(one, other, "acceptance_length", per=budget - before)


def over_budgets(
    measures: Measures, settings: Sequence[Setting], names: dict[Setting, str] | None = None
) -> pd.DataFrame:
    """Block efficiency at every budget at which settings like these were measured."""
    return pd.DataFrame(
        [
            point(like.pair, names[like] if names else like.tree, budget, measures.ratio(like._replace(budget=budget)))
            for like in settings
            for budget in measures.budgets(like)
        ]
    )


def all_budgets(measures: Measures, pair: str, shapes: Sequence[str]) -> list[Setting]:
    """The greedy settings of these shapes."""
    likes = [Setting(pair, shape, 0) for shape in shapes]
    return [like._replace(budget=budget) for like in likes for budget in measures.budgets(like)]


def point(panel: str, series: str, at: int, one: Interval) -> dict[str, Any]:
    """A row of a figure's table."""
    return {"panel": panel, "series": series, "at": at, "value": one.value, "low": one.low, "high": one.high}


def range_of(values: Iterable[float]) -> str:
    """The least and the most of all pairs."""
    listed = sorted(values)
    low, high = number(listed[0]), number(listed[-1])
    return low if low == high else f"{low}–{high}"


def verdict(texts: Catalogue, difference: Interval) -> str:
    """What an interval of a difference supports."""
    if not difference.known:
        return texts.label("verdict.unknown")
    return texts.label(
        "verdict.more" if difference.low > 0 else "verdict.less" if difference.high < 0 else "verdict.open"
    )


def cell(one: Interval | None) -> Text:
    """A cell of a table."""
    return ("–",) if one is None else (str(one),)
