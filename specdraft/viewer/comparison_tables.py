"""Two studies side by side, in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from specdraft.errors import plain_text
from specdraft.results.intervals import Interval, number
from specdraft.results.manifest_differences import Differing
from specdraft.results.side_by_side import BETTER, METRICS, NOISE, VERDICTS, WORSE, SideBySide

MOST_DIFFERING, MOST_CHANGED, WIDTH = 8, 16, 44
MAIN = ("block_efficiency", "speedup")  # metrics whose largest changes are listed
STYLES = {BETTER: "green", WORSE: "red"}
SHOWN = ("pair", "tree", "budget")  # keys that are shown also where all rows share them


def comparison_parts(found: SideBySide, names: tuple[str, str], differs: Sequence[Differing]) -> Iterator[Table | Text]:
    """What differs beside the numbers, verdicts by metric, what changed most, and what to know of all that."""
    yield Text(plain_text(f"a: {names[0]}\nb: {names[1]}  (differences are b minus a)"))
    if differs:
        lines = [f"{one.what}: {_cut(one.a)} | {_cut(one.b)}" for one in differs[:MOST_DIFFERING]]
        more = [f"and {len(differs) - MOST_DIFFERING} more"] if len(differs) > MOST_DIFFERING else []
        yield Text(plain_text("\n  ".join(["not the same in both:", *lines, *more])))
    yield _counts(found)
    for metric in MAIN:
        changed = changed_rows(found, metric)
        if len(changed):
            yield _changed(found, metric, changed)
        elif (found.rows["metric"] == metric).any():
            yield Text(f"{metric}: nothing changed beyond noise")
    for note in found.notes:
        yield Text(plain_text(f"note: {note}"))


def changed_rows(found: SideBySide, metric: str) -> pd.DataFrame:
    """What is better or worse by a metric, the largest differences first."""
    rows = found.rows[(found.rows["metric"] == metric) & found.rows["verdict"].isin([BETTER, WORSE])]
    return rows.iloc[rows["difference"].abs().argsort(kind="stable")[::-1]]


def shown_keys(found: SideBySide) -> list[str]:
    """The key columns that tell rows apart, and those that name a tree."""
    return [key for key in found.keys if key in SHOWN or found.rows[key].nunique() > 1]


def signed(difference: Interval) -> str:
    """A difference with its sign."""
    return f"{'+' if difference.value > 0 else ''}{difference}"


def _counts(found: SideBySide) -> Table:
    caption = f"{found.common} combinations are in both; 'by chance': called better or worse if nothing had changed"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("metric")
    counted = {metric: found.counts(metric) for metric in METRICS if (found.rows["metric"] == metric).any()}
    verdicts = [verdict for verdict in VERDICTS if any(counts[verdict] for counts in counted.values())]
    for name in (*verdicts, "by chance"):
        table.add_column(name, justify="right")
    for metric, counts in counted.items():
        cells = [Text(str(counts[verdict]), STYLES.get(verdict, "") if counts[verdict] else "") for verdict in verdicts]
        if NOISE in verdicts and (same := found.unchanged(metric)):
            cells[verdicts.index(NOISE)] = Text(f"{counts[NOISE]} ({same} equal)")
        table.add_row(metric, *cells, f"{found.by_chance(metric):.0f}")
    return table


def _changed(found: SideBySide, metric: str, changed: pd.DataFrame) -> Table:
    keys = [key for key in shown_keys(found) if key in SHOWN or changed[key].nunique() > 1]
    caption = (
        f"the largest of {len(changed)} differences; the page and the CSV have all"
        if len(changed) > MOST_CHANGED
        else None
    )
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption=caption, caption_justify="left")
    for key in keys:
        table.add_column(key, overflow="fold", justify="right" if key == "budget" else "left")
    for name in (f"{metric}: a", "b", "difference", ""):
        table.add_column(name, justify="right", no_wrap=name == "difference")
    for row in changed.head(MOST_CHANGED).to_dict("records"):
        values = [number(row["a"]), number(row["b"]), signed(Interval.of(row, "difference"))]
        verdict = Text(row["verdict"], STYLES[row["verdict"]])
        table.add_row(*(plain_text(str(row[key])) for key in keys), *values, verdict)
    return table


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
