"""What `specdraft theory` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specdraft.theory.prediction import Compared, Prediction
    from specdraft.theory.published import Row

BAR = 24  # cells of the longest bar
PARTS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"


def bar(value: float, largest: float) -> str:
    """A bar in eighths of a cell."""
    eighths = round(8 * BAR * value / largest) if largest > 0 else 0
    return "\u2588" * (eighths // 8) + (PARTS[eighths % 8] if eighths % 8 else "")


def formula_tables(facts: dict[str, Any]) -> Iterable[RenderableType]:
    """The closed forms at one alpha, gamma and cost, and the curve over gamma."""
    best = "longer is always better" if facts["best_gamma"] is None else str(facts["best_gamma"])
    yield Text(f"alpha {facts['alpha']:g}, gamma {facts['gamma']}, cost {facts['cost']:g}")
    yield Text(
        f"tokens per target call {facts['expected_tokens']:.3f}, speed-up {facts['speedup']:.3f}, operations "
        f"{facts['operations']:.3f}"
    )
    yield Text(f"best gamma: {best}" + (" (drafting does not pay)" if facts["best_gamma"] == 0 else ""))
    table = Table(box=SIMPLE_HEAD, caption="the bar: speed-up over plain decoding; operations with the same cost ratio")
    for name in ("gamma", "tokens", "speed-up", "operations"):
        table.add_column(name, justify="right")
    table.add_column("", min_width=BAR)
    largest = max(row["speedup"] for row in facts["table"])
    for row in facts["table"]:
        cells = [str(row["gamma"]), *(f"{row[name]:.3f}" for name in ("expected_tokens", "speedup", "operations"))]
        table.add_row(*cells, bar(row["speedup"], largest), style="bold" if row["gamma"] == facts["gamma"] else "")
    yield table


def published_table(rows: Sequence[Row]) -> Iterable[RenderableType]:
    """Published rows beside the formula."""
    columns = ("task", "T", "draft", "gamma", "alpha", "cost", "tokens", "gain", "paper", "seen", "given", "near")
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows:
        inputs = (str(row.gamma), f"{row.alpha:.2f}", f"{row.cost:.2f}")
        outcomes = (f"{row.tokens:.3f}", f"{row.speedup:.2f}", f"{row.expected:.1f}", f"{row.measured:.1f}")
        given = ("yes" if yes else "no" for yes in (row.given, row.given_unrounded))
        table.add_row(row.task, str(row.temperature), row.draft, *inputs, *outcomes, *given)
    yield Text("T5-XXL with smaller T5s (Leviathan et al. 2023, tables 2 and 4)")
    yield table
    yield Text("tokens: per target call, by the formula; gain: speed-up, by the formula")
    yield Text("paper: the speed-up that it expects; seen: the one that it reports")
    yield Text("given: the formula gives the expected one; near: at an alpha and a cost within 0.005 it does")
    counts = [sum(row.given for row in rows), sum(row.given_unrounded for row in rows)]
    yield Text(f"the formula gives {counts[0]} of {len(rows)} as printed, {counts[1]} within rounding")


def prediction_tables(prediction: Prediction) -> Iterable[RenderableType]:
    """A pair's prediction beside its measurement."""
    best = "longer is always better" if prediction.best_gamma is None else str(prediction.best_gamma)
    setting = f"temperature {prediction.temperature:g}, top-k {prediction.top_k}, top-p {prediction.top_p:g}"
    yield Text(f"{prediction.pair}, {setting}, {prediction.prompts} prompts")
    yield Text(f"alpha {prediction.alpha:.3f}, cost ratio {prediction.cost:.3f}, best gamma by the formula: {best}")
    columns = ("gamma", "tokens, predicted", "cut at the end", "measured", "speed-up, predicted", "from replay")
    table = Table(
        box=SIMPLE_HEAD, caption="tokens per target call, bonus included; in brackets: 95 % intervals over prompts"
    )
    for name in columns:
        table.add_column(name, justify="right", no_wrap=name == "measured")
    for row in prediction.table:
        table.add_row(*_compared_cells(row))
    yield table
    yield Text("Why they differ")
    yield from (Text(f"- {reason}") for reason in prediction.why())


def _compared_cells(row: Compared) -> Sequence[str]:
    estimated = row.estimated_speedup.value  # none where costs cannot be trusted
    speedups = (f"{row.predicted_speedup.value:.2f}", "-" if isnan(estimated) else f"{estimated:.2f}")
    return [
        str(row.gamma),
        f"{row.predicted_tokens.value:.2f}",
        f"{row.predicted_in_texts:.2f}",
        f"{row.measured_tokens:.2f}",
        *speedups,
    ]
