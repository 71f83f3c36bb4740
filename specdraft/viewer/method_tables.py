"""What `specdraft bench methods` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from specdraft.bench.method_tables import LOOP_FREE
from specdraft.errors import plain_text
from specdraft.results.intervals import FEWEST_PROMPTS, Interval, number

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from specdraft.bench.method_tables import MethodTables

NUMBERS = ("Throughput", "Acceptance\nrate", "Tokens\nper step", "Speed-up")


def method_lines(tables: MethodTables, facts: Mapping[str, Any]) -> Iterable[RenderableType]:
    """The methods, what is without figures and why, their speed-ups by category, and how sure that is."""
    every = tables.summary[tables.summary["texts"] != LOOP_FREE]
    yield _methods(every, facts)
    for row in every[every["reason"] != ""].to_dict("records"):
        yield Text(plain_text(f"{row['method']}: {row['reason']}"), style="yellow")
    yield _categories(tables)
    yield from map(Text, sureness(facts))


def sureness(facts: Mapping[str, Any]) -> list[str]:
    """How sure the figures are, a line each."""
    share, rounds = f"{facts['width']:.0%}", f"{facts['rounds']} round{'s' if facts['rounds'] > 1 else ''}"
    known = (
        "timing alone leaves every speed-up" if facts["narrow"] else "NOT NARROW: timing alone leaves some speed-up not"
    )
    lines = [f"{rounds}: {known} within {share} of itself (bench.width)"]
    if ties := facts["ties"]:
        lines.append(f"{len(ties)} texts differ from plain decoding at a near-tie, which rounding decides")
    return lines


def _methods(summary: pd.DataFrame, facts: Mapping[str, Any]) -> Table:
    what = f"{facts['prompt_count']} prompts x {facts['max_new_tokens']} tokens, {facts['dtype']} on {facts['device']}"
    threads = facts["environment"].get("threads")
    few = facts["prompt_count"] < FEWEST_PROMPTS
    about = f"no interval: fewer than {FEWEST_PROMPTS} prompts" if few else "in brackets: 95 % intervals over prompts"
    about = f"throughput: tokens per second; {about}"
    title = f"{facts['pair']}: {what}, {threads} thread{'' if threads == 1 else 's'}"
    table = Table(box=SIMPLE_HEAD, title=plain_text(title), caption=about, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("Method", overflow="fold", min_width=16)
    for name in NUMBERS:
        table.add_column(name, justify="right", no_wrap=name == "Speed-up")
    for row in summary.to_dict("records"):
        table.add_row(Text(plain_text(str(row["method"]))), *_cells(row))
    return table


def _cells(row: Mapping[Any, Any]) -> list[str]:
    if isnan(row["wall_s"]):
        return ["–"] * len(NUMBERS)
    return [
        f"{row['tokens_per_s']:.1f}",
        number(row["acceptance_rate"]),
        number(row["block_efficiency"]),
        str(Interval.of(row, "speedup")),
    ]


def _categories(tables: MethodTables) -> Table:
    """Speed-ups; below them the share of loops, and the figures without texts that loop."""
    rows = tables.by_category[tables.by_category["texts"] != LOOP_FREE]
    names = list(dict.fromkeys(rows["category"]))
    table = Table(box=SIMPLE_HEAD, title="Speed-up by category", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("Method", overflow="fold")
    for name in [*map(str, names), LOOP_FREE]:
        table.add_column(plain_text(name), justify="right")
    speed = rows.set_index(["method", "category"])["speedup"]
    free = tables.summary[tables.summary["texts"] == LOOP_FREE].set_index("method")["speedup"]
    for method in dict.fromkeys(rows["method"]):
        cells = [number(speed[method, name]) for name in names]
        table.add_row(Text(plain_text(str(method))), *cells, number(free.get(method, float("nan"))))
    table.add_section()
    plain = rows[rows["kind"] == "plain"].set_index("category")["loop_share"]
    table.add_row("loop_share", *(number(plain[name]) for name in names), "")
    return table
