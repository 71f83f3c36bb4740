"""What `specdraft bench costs` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from specdraft.bench.curve import CostCurve
from specdraft.errors import plain_text

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

ALONE = {
    "plain_s": "a step of plain decoding",
    "other_s": "the rest of a step",
    "select_s": "choosing a level of a dynamic tree",
    "target_prefill_s": "the target reads a prompt",
}


def cost_tables(pair: str, curve: CostCurve) -> Iterator[RenderableType]:
    """The costs in milliseconds with their quartiles, how they were measured, and whether to trust them."""
    spread = curve.measured.quartiles if curve.measured else {}
    table = Table(box=SIMPLE_HEAD, title=plain_text(f"{pair} {curve.point}: milliseconds, in brackets the quartiles"))
    for name in ("tokens", "verify", "draft a level below so many"):
        table.add_column(name, justify="right")
    for place, size in enumerate(curve.sizes):
        both = [_cell(getattr(curve, n)[place], spread.get(n, []), place) for n in ("verify_s", "draft_level_s")]
        table.add_row(str(size), *both)
    yield table
    for name, what in ALONE.items():
        yield Text(f"{what}: {_cell(getattr(curve, name), spread.get(name, []), 0)} ms")
    if curve.measured is None:
        return
    measured = curve.measured
    used = "" if measured.elsewhere is None else f", other work used {measured.elsewhere:.1f} of {measured.cores} cores"
    threads = f"{curve.threads} thread{'' if curve.threads == 1 else 's'}"
    yield Text(plain_text(f"{measured.date}, {curve.device}, {threads}, in {measured.seconds:.0f} s{used}"))
    yield from _trust(curve)


def _trust(curve: CostCurve) -> Iterator[Text]:
    if not curve.doubts:
        yield Text("reliable", style="green")
    for why in curve.doubts:
        yield Text(f"NOT RELIABLE: {why}", style="yellow")


def _cell(seconds: float, quartiles: Iterable[list[float]], place: int) -> str:
    ends = [*quartiles]
    low_high = f" [{1000 * ends[place][0]:.2f}, {1000 * ends[place][1]:.2f}]" if place < len(ends) else ""
    return f"{1000 * seconds:.2f}{low_high}"


def validation_table(rows: pd.DataFrame, mean: float, worst: float) -> Table:
    """Estimated and measured speed-up of each tree."""
    caption = f"{len(rows)} trees: mean error {mean:.1%}, worst {worst:+.1%}"
    table = Table(box=SIMPLE_HEAD, title="estimates against live decoding", caption=caption)
    for name in ("tree", "nodes", "estimated speed-up", "measured speed-up", "error"):
        table.add_column(name, justify="left" if name == "tree" else "right")
    for row in rows.itertuples():
        table.add_row(
            str(row.tree), str(row.budget), f"{row.est_speedup:.2f}", f"{row.speedup:.2f}", f"{row.error:+.0%}"
        )
    return table
