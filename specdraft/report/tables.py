"""The tables of a report, as texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from specdraft.report.depth_table import depth_table
from specdraft.report.findings import Findings
from specdraft.report.leads import VERDICTS, Lead
from specdraft.report.lengths_table import lengths_table
from specdraft.report.prediction_tables import ablation_table, promises_table
from specdraft.report.sized_table import sized_table
from specdraft.report.study_files import StudyFiles, visible
from specdraft.report.summary_table import summary_table
from specdraft.report.table import Table, interval_cell, value_cell
from specdraft.report.text_tables import quality_table, sizes_table
from specdraft.report.words import say

WINNERS = ("setting", "nodes", "first", "tokens per pass [95 %]", "runner-up", "lead [95 %]", "verdict",
           "hindsight (reference)")  # fmt: skip


def winners_table(name: str, title: str, leads: Sequence[Lead], total: int) -> Table:
    """Who leads, a row per lead; of `total` ones."""
    verdicts = {lead.verdict for lead in leads}
    meanings = [
        f"{verdict}: {meaning.partition(': ')[2] or meaning}"
        for verdict, meaning in VERDICTS.items()
        if verdict in verdicts
    ]
    note = say(
        "Verdicts: {}. Hindsight is fitted on the prompts that it is scored on, and does not compete.{}{}",
        "; ".join(meanings),
        _about_sizes(leads),
        f" {len(leads)} of {total} settings; the others are in the table of winners." if len(leads) < total else "",
    )
    return Table(name, title, WINNERS, list(map(_winners_row, leads)), note, frozen=2)


def _about_sizes(leads: Iterable[Lead]) -> str:
    own_size = any(lead.sizes for lead in leads)
    return (
        " Trees that have a size of their own compete at the nearest budget; theirs is in brackets." if own_size else ""
    )


def _winners_row(lead: Lead) -> tuple[str, ...]:
    return (
        lead.panel,
        str(lead.budget),
        " = ".join(map(lead.said, lead.trees)),
        interval_cell(lead.value),
        lead.said(lead.runner) if lead.runner else "–",
        interval_cell(lead.lead),
        lead.verdict,
        value_cell(lead.hindsight),
    )


def tables(findings: Findings) -> Iterable[Table]:
    """Every table of the report that has rows."""
    if leads := findings.leads:
        title = "The winner of each budget, and its lead over the runner-up"
        yield winners_table("winners", title, leads, len(leads))
    others = [sized_table(findings), lengths_table(findings), promises_table(findings), ablation_table(findings.study)]
    others += [quality_table(findings), sizes_table(findings), depth_table(findings)]
    for table in others:
        if table is not None:
            yield table
    if len(findings.study.written):
        yield summary_table(findings.study)
    if findings.study.failures:
        yield _failures_table(findings.study)


def _failures_table(study: StudyFiles) -> Table:
    keys = ("combination", "prompt_id", "error", "overrides")
    rows = [tuple(visible(failure.get(key) or "–") for key in keys) for failure in study.failures]
    return Table("failures", "What failed", ("combination", "prompt", "error", "to repeat it"), rows)
