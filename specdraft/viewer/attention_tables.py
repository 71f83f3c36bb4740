"""What `specdraft bench attention` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from specdraft.errors import plain_text
from specdraft.results.intervals import number

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

NUMBERS = ("Time (ms)", "Spread", "One query =\n1", "GB/s", "Of a copy", "Off by")
PLACES = ["geometry", "batch", "context"]


def attention_lines(title: str, rows: pd.DataFrame, findings: Sequence[str]) -> Iterable[RenderableType]:
    """A table for each place, and what they show."""
    yield Text(plain_text(title), style="bold")
    for place, some in rows.groupby(PLACES, sort=False):
        yield _table(dict(zip(PLACES, place, strict=True)), some)
    yield from (Text(plain_text(text)) for text in findings)


def _table(place: Mapping[str, Any], rows: pd.DataFrame) -> Table:
    title = f"{place['geometry']}, batch {place['batch']}, context {place['context']:,}"
    table = Table(box=SIMPLE_HEAD, title=title, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("Tree", no_wrap=True)
    table.add_column("Contestant", no_wrap=True)
    for name in NUMBERS:
        table.add_column(name, justify="right")
    before = ""
    for row in rows.to_dict("records"):
        tree = plain_text(
            f"{row['shape']} {row['nodes']} ({row['leaves']} {'leaf' if row['leaves'] == 1 else 'leaves'})"
        )
        table.add_row(tree if tree != before else "", row["contestant"], *_cells(row))
        before = tree
    return table


def _cells(row: Mapping[Any, Any]) -> list[str]:
    if isnan(row["median_s"]):
        return [Text(plain_text(str(row["note"])).partition(":")[0], style="yellow").plain, *["–"] * (len(NUMBERS) - 1)]
    return [
        f"{1e3 * row['median_s']:,.3g}" if row["median_s"] < 1 else f"{1e3 * row['median_s']:,.0f}",
        f"{row['spread']:.0%}",
        number(row["median_s"] / row["decode_s"]),
        number(row["gb_s"]),
        f"{row['copy_share']:.0%}",
        f"{row['max_rel_err']:.0e}",
    ]
