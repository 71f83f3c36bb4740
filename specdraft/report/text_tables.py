"""The tables of what live texts are worth, and of how large trees were that differ from step to step."""

from __future__ import annotations

from typing import Any

import pandas as pd

from specdraft.report.findings import Findings
from specdraft.report.study_files import visible
from specdraft.report.table import Table, interval_cell, value_cell
from specdraft.report.words import Text, plural, say
from specdraft.results.intervals import Interval

QUALITY_COLUMNS = (
    "pair",
    "rule",
    "T",
    "tree",
    "nodes",
    "perplexity [95 %]",
    "nll",
    "plain nll",
    "nll over plain [95 %]",
)
SIZES_COLUMNS = ("setting", "tree", "budget", "steps", "mean", "least", "10 %", "median", "90 %", "most")
SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)
SAME = 1e-6  # nats a token that six digits of two sums may differ by


def quality_table(findings: Findings) -> Table | None:
    """How probable live texts are to the target, beside plain decoding's; None where nothing was decoded live."""
    rows = findings.rows[findings.rows["nll"].notna()]
    if rows.empty:
        return None
    equal = rows["nll_over_plain"].abs() <= SAME
    other, note = rows[~equal], _about_equal(int(equal.sum()), len(rows))
    listed = [_quality_row(row) for _, row in other.iterrows()]
    return Table("quality", "How probable the texts are to the target", QUALITY_COLUMNS, listed, note)


def _about_equal(equal: int, count: int) -> Text:
    return say(
        "nll: nats a token of the text under the target, temperature 1; nll over plain: less that of plain decoding's "
        "texts of the same prompts, paired. Sampled texts differ by chance. {} of {} have plain decoding's nll and are "
        "not listed.",
        equal,
        plural(count, "live combination"),
    )


def _quality_row(row: pd.Series[Any]) -> tuple[str, ...]:
    over = Interval.of(row, "nll_over_plain")
    names = (row["pair"], row["acceptance"], row["temperature"], row["shown"], row["nodes"])
    values = (
        interval_cell(Interval.of(row, "perplexity")),
        *(value_cell(row[name], 3) for name in ("nll", "plain_nll")),
    )
    return (*map(_said, names), *values, interval_cell(over, "+.3f"))


def sizes_table(findings: Findings) -> Table | None:
    """How many nodes the trees had that differ from step to step; None where none does."""
    counts = findings.study.details.get("sizes.csv")
    if counts is None or counts.empty:
        return None
    sizes = counts.sort_values("drafted_tokens").groupby("combination")
    rows = findings.rows.drop_duplicates("combination").set_index("combination")
    differ = [(row, of_one) for name, of_one in sizes for _, row in rows[rows.index == name].iterrows()]
    listed = [_sizes_row(row, of_one) for row, of_one in differ if len(of_one) > 1]
    if not listed:
        return None
    note = say("Draft nodes that were sent to the target in a step, over the steps of all prompts.")
    return Table("sizes", "How large trees were that differ from step to step", SIZES_COLUMNS, listed, note)


def _sizes_row(row: pd.Series[Any], counts: pd.DataFrame) -> tuple[str, ...]:
    """`counts`: steps by `drafted_tokens`, ascending."""
    names = (row["panel"], row["shown"], row["budget"])
    sizes, steps = counts["drafted_tokens"].to_numpy(), counts["steps"].to_numpy()
    until = steps.cumsum()
    shares = (f"{sizes[until.searchsorted(share * until[-1]).clip(0, len(sizes) - 1)]:g}" for share in SHARES)
    return (*map(_said, names), f"{until[-1]:,.0f}", f"{(sizes * steps).sum() / until[-1]:.1f}", *shares)


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else visible(value)
