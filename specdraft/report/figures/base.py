"""What a figure is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.theme import CONFIG
from specdraft.report.words import Text


@dataclass(frozen=True)
class Figure:
    """A figure: a Vega-Lite specification that names its data, or the words that stand in its place.

    Attributes:
        name: file name and anchor.
        spec: None where the study has nothing to draw.
        tables: the data by the names that the specification uses; figures may share a table, each with its columns.
    """

    name: str
    title: str
    caption: Text
    spec: dict[str, Any] | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """Every figure of a study, and the tables that they share."""

    figures: list[Figure] = field(default_factory=list)
    datasets: dict[str, pd.DataFrame] = field(default_factory=dict)


def drawn(name: str, title: str, caption: Text, chart: Any, tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A figure out of an Altair chart whose data are named."""
    return Figure(name, title, caption, chart.configure(**CONFIG).to_dict(validate=False), tables)


def named(name: str) -> alt.NamedData:
    """The data of a chart: a table of its figure."""
    return alt.NamedData(name=name)


def together(figures: Iterable[Figure]) -> Drawn:
    """Figures with their tables; a shared one has the columns of all."""
    everything = Drawn()
    for figure in figures:
        everything.figures.append(figure)
        for name, table in figure.tables.items():
            before = everything.datasets.get(name)
            everything.datasets[name] = table if before is None else _with_new_columns(before, table)
    return everything


def _with_new_columns(before: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([before, table[[column for column in table if column not in before]]], axis=1)
