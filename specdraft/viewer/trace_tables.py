"""What is recorded, as tables in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.table import Table

from specdraft.errors import plain_text
from specdraft.traces.listing import TraceGroup, Whose
from specdraft.traces.store import StoredTrace

NAMES = {"rule_records": "rule record", "costs": "cost table"}
MANY = {"trajectory": "trajectories"}  # else: with an s


def groups_table(groups: Iterable[TraceGroup]) -> Table:
    """A line for each group."""
    table = _table("target", "drafter", "sampling", "prompts", "new", "recorded", "tokens", "MiB", "last")
    table.columns[5].no_wrap = table.columns[8].no_wrap = True
    for group in groups:
        tokens = f"{group.tokens:,}" if group.tokens else ""
        size = f"{group.size_bytes / 2**20:.2f}"
        cells = [*group.whose, _counted(group.kinds), tokens, size, _day(group.written)]
        table.add_row(*map(plain_text, cells))
    return table


def traces_table(described: Iterable[tuple[StoredTrace, Whose, str]]) -> Table:
    """A line for each trace."""
    table = _table("key", "kind", "target", "drafter", "sampling", "prompt", "KiB", "written")
    table.columns[0].no_wrap = True
    for trace, whose, prompt in described:
        size = f"{trace.size_bytes / 1024:.1f}"
        cells = [trace.key, trace.about["kind"], *whose[:3], prompt, size, _day(trace.written)]
        table.add_row(*map(plain_text, cells))
    return table


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        numbers = name in ("new", "tokens", "MiB", "KiB")
        table.add_column(
            name, justify="right" if numbers else "left", overflow="fold", no_wrap=numbers or name == "last"
        )
    return table


def _counted(kinds: Counter[str]) -> str:
    """`80 annotations`, and so on, a line each."""
    return "\n".join(f"{count} {_name(kind, count)}" for kind, count in sorted(kinds.items()))


def _name(kind: str, count: int) -> str:
    name = NAMES.get(kind, kind)
    return name if count == 1 else MANY.get(kind, f"{name}s")


def _day(written: float) -> str:
    return f"{datetime.fromtimestamp(written):%Y-%m-%d}"
