"""Acceptance by depth as a table: of the steps that got there, and of all steps."""

from __future__ import annotations

import pandas as pd

from specdraft.report.figures.canvas import canvas_of
from specdraft.report.figures.depth import CONDITIONAL, STEPS, rates_by_depth
from specdraft.report.figures.details import chosen_details
from specdraft.report.figures.shares import about_intervals, with_intervals
from specdraft.report.findings import Findings
from specdraft.report.table import Table, interval_cell
from specdraft.report.words import say
from specdraft.results.intervals import Interval

COLUMNS = ("setting", "shape", "nodes", "depth", "steps that got there", "accepted there", "conditional rate [95 %]",
           "marginal rate [95 %]")  # fmt: skip


def depth_table(findings: Findings) -> Table | None:
    """A row for each depth of the shapes that the figure shows, at the headline budgets; None where nothing is known
    of depths."""
    if findings.rows.empty:
        return None
    canvas = canvas_of(findings)
    rates = rates_by_depth(canvas, chosen_details(canvas))
    if rates.empty:
        return None
    rates = rates[rates["headline"]].reset_index(drop=True)
    shares = {rate: with_intervals(rates, rate, steps) for rate, steps in STEPS.items()}
    rows = [_row(shares, place) for place in range(len(rates))]
    note = say(
        "Conditional: accepted / steps that got there. Marginal: accepted / all steps, so it never rises with the "
        "depth; vLLM's acceptance rates per position are these. {}",
        about_intervals(shares[CONDITIONAL]),
    )
    return Table("depths", "Acceptance by depth", COLUMNS, rows, note, frozen=2)


def _row(shares: dict[str, pd.DataFrame], place: int) -> tuple[str, ...]:
    of = {rate: shares[rate].iloc[place] for rate in STEPS}
    one = of[CONDITIONAL]
    counts = (f"{one['budget']:g}", f"{one['depth']:g}", f"{one['reached']:,.0f}", f"{one['accepted']:,.0f}")
    cells = [interval_cell(Interval(of[rate][rate], of[rate]["low"], of[rate]["high"]), ".3f") for rate in STEPS]
    return (str(one["panel"]), str(one["shown"]), *counts, *cells)
