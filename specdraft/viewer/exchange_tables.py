"""What `specdraft reconcile` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isnan, nan
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from specdraft.errors import plain_text
from specdraft.exchange.explain import Possibility
from specdraft.exchange.golden import INSIDE, Held
from specdraft.exchange.reading import METRICS, Figure, Reading
from specdraft.exchange.reconcile import Reconciled
from specdraft.results.intervals import number

MOST = 6  # possibilities, and rows, that are listed
VERDICTS = {True: "within", False: "outside", None: "no interval"}


def reconciled_parts(found: Reconciled) -> Iterator[Table | Text]:
    """The figures, what they are here, and what a study says of them."""
    yield Text(plain_text(found.reading.source), style="bold")
    yield _figures(found.reading)
    yield _columns(found.reading)
    if found.reading.marginal:
        yield _depths(found)
    if found.study is not None:
        yield _matching(found)
    if found.row and (tried := _differing(found)):
        yield _tried(tried)
    for line in answer(found):
        yield Text(plain_text(line), style="bold")
    for note in (*found.reading.notes, *found.notes):
        yield Text(plain_text(f"note: {note}"))


def answer(found: Reconciled) -> Iterator[str]:
    """In sentences: the same, or what explains the difference."""
    for one in found.comparison:
        both = f"{one.metric}: {number(one.theirs, 3)} there, {one.ours:.3f} here ({found.row})"
        if one.together is None:
            yield f"{both}; fewer than 5 prompts have no interval to tell by"
        elif one.together:
            yield f"{both}: the same within the interval"
        else:
            yield f"{both}: they differ; {_explained(found, one.metric)}"


def _explained(found: Reconciled, metric: str) -> str:
    tried = [one for one in found.possibilities if one.metric == metric]
    explain = [f"{one.what} ({one.ours:.3f})" for one in tried if one.together]
    if not explain:
        return f"none of these explains it ({len(tried)} possibilities computed)"
    more = f" and {len(explain) - MOST} more" if len(explain) > MOST else ""
    return f"of {len(tried)} possibilities these bring the two together: {'; '.join(explain[:MOST])}{more}"


def _differing(found: Reconciled) -> list[Possibility]:
    """Possibilities of metrics that differ: those that explain first, then other definitions that do not."""
    differ = {one.metric for one in found.comparison if one.together is False}
    of_them = [one for one in found.possibilities if one.metric in differ]
    explain = [one for one in of_them if one.together]
    return [*explain[: 2 * MOST], *(one for one in of_them if not one.together and not one.setting)]


def _figures(reading: Reading) -> Table:
    table = _table("theirs", ("value", "right"), "what it is", "here")
    for figure in reading.figures:
        table.add_row(
            plain_text(figure.name),
            number(figure.value, 3),
            plain_text(figure.means),
            figure.column or "no such column",
        )
    return table


def _columns(reading: Reading) -> Table:
    table = _table("in the columns here", ("", "right"))
    for name, count in reading.counts._asdict().items():
        table.add_row(name, "–" if isnan(count) else f"{count:,.0f}")
    for metric in METRICS:
        table.add_row(metric, f"{reading.intervals[metric]:.4f}" if not isnan(reading.ratios[metric]) else "–")
    return table


def _depths(found: Reconciled) -> Table:
    ours = found.positions
    table = _table(("depth", "right"), ("marginal", "right"), ("conditional", "right"))
    if ours is not None:
        table.add_column(f"marginal ({plain_text(found.row)})", justify="right")
        table.add_column("conditional", justify="right")
    for depth, (marginal, conditional) in enumerate(
        zip(found.reading.marginal, found.reading.conditional, strict=True), start=1
    ):
        cells = [number(marginal, 3), number(conditional, 3)]
        if ours is not None:
            (here,) = ours[ours["depth"] == depth][["marginal_rate", "conditional_rate"]].to_numpy().tolist() or [
                [nan, nan]
            ]
            cells += [number(rate, 3) for rate in here]
        table.add_row(str(depth), *cells)
    return table


def _matching(found: Reconciled) -> Table:
    table = _table("row of the study", "metric", ("theirs", "right"), ("here", "right"), "")
    for name, possibilities in [*found.matching.items()][:MOST]:
        for one in possibilities:
            table.add_row(plain_text(name), one.metric, *_both(one), VERDICTS[one.together])
    if (more := len(found.matching) - MOST) > 0:
        table.caption, table.caption_justify = f"and {more} more rows, further away", "left"
    return table


def _tried(tried: Sequence[Possibility]) -> Table:
    table = _table("if", "metric", ("theirs", "right"), ("here", "right"), "")
    for one in tried:
        table.add_row(plain_text(one.what), one.metric, *_both(one), VERDICTS[one.together])
    return table


def _both(one: Possibility) -> tuple[str, str]:
    return number(one.theirs, 3), f"{one.ours:.3f}"


def _table(*columns: str | tuple[str, Literal["right"]]) -> Table:
    """With columns of text, and of numbers to the right."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        if isinstance(column, str):
            table.add_column(column, overflow="fold", no_wrap=column == "metric")
        else:
            table.add_column(column[0], justify=column[1])
    return table


def as_data(found: Reconciled) -> dict[str, Any]:
    """For programs."""
    reading = found.reading
    return {
        "kind": reading.kind,
        "source": reading.source,
        "figures": [_figure_data(figure) for figure in reading.figures],
        "counts": {name: _none(count) for name, count in reading.counts._asdict().items()},
        "ratios": {metric: interval.as_dict() for metric, interval in reading.intervals.items()},
        "positions": [
            {"depth": depth, "marginal": marginal, "conditional": _none(conditional)}
            for depth, (marginal, conditional) in enumerate(zip(reading.marginal, reading.conditional, strict=True), 1)
        ],
        "requests": len(reading.requests),
        "study": str(found.study.folder) if found.study else None,
        "row": found.row or None,
        "rows": {name: [_possibility(one) for one in possible] for name, possible in found.matching.items()},
        "possibilities": [_possibility(one) for one in found.possibilities],
        "answer": [*answer(found)],
        "notes": [*reading.notes, *found.notes],
    }


def _figure_data(figure: Figure) -> dict[str, Any]:
    return {"name": figure.name, "value": _none(figure.value), "means": figure.means, "column": figure.column or None}


def _possibility(one: Possibility) -> dict[str, Any]:
    return {"metric": one.metric, "what": one.what, "theirs": _none(one.theirs), "ours": one.ours.as_dict(),
            "together": one.together}  # fmt: skip


def _none(value: float) -> float | None:
    return None if isnan(value) else value


def golden_parts(held: Sequence[Held]) -> Iterable[Table | Text]:
    """Rows that left their intervals or are gone, and how many did not."""
    left = [one for one in held if one.verdict != INSIDE]
    if left:
        table = _table("row", "metric", ("expected", "right"), ("now", "right"), "")
        for one in left:
            table.add_row(_row(one), one.metric, f"{one.expected:.4f}", number(one.value, 4), one.verdict)
        yield table
    rows = {_row(one) for one in held}
    out = {_row(one) for one in left}
    yield Text(f"{len(rows) - len(out)} of {len(rows)} rows are inside their intervals", style="bold")


def _row(one: Held) -> str:
    return plain_text(" ".join(f"{key}={value}" for key, value in one.keys.items()))


def golden_data(held: Sequence[Held]) -> dict[str, Any]:
    """For programs."""
    rows = [
        {"keys": one.keys, "metric": one.metric, "expected": one.expected.as_dict(), "value": _none(one.value),
         "verdict": one.verdict}
        for one in held
    ]  # fmt: skip
    return {"kind": "golden", "inside": all(one.verdict == INSIDE for one in held), "rows": rows}
