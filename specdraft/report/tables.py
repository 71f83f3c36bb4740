"""The tables of a report, as texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from specdraft.report.findings import Findings
from specdraft.report.leads import VERDICTS, Lead
from specdraft.report.lengths_table import lengths_table
from specdraft.report.prediction_tables import ablation_table, promises_table
from specdraft.report.sized_table import sized_table
from specdraft.report.study_files import StudyFiles, visible
from specdraft.report.table import Table
from specdraft.report.text_tables import quality_table, sizes_table
from specdraft.report.words import say
from specdraft.results.intervals import number
from specdraft.results.metrics import COUNTS, LATENCIES, TIMES
from specdraft.results.summary import RATIOS_WITH_ENDS

ESTIMATES = ("est_tokens_per_s", "est_speedup")
BRIEF = ("tree", "budget", "block_efficiency", "block_efficiency_lo", "block_efficiency_hi", "acceptance_length",
         "acceptance_rate", "speedup", "est_speedup")  # fmt: skip
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
    return Table(name, title, WINNERS, list(map(_winners_row, leads)), note)


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
        str(lead.value),
        lead.said(lead.runner) if lead.runner else "–",
        str(lead.lead),
        lead.verdict,
        number(lead.hindsight),
    )


def tables(findings: Findings) -> Iterable[Table]:
    """Every table of the report that has rows."""
    if leads := findings.leads:
        title = "The winner of each budget, and its lead over the runner-up"
        yield winners_table("winners", title, leads, len(leads))
    others = [sized_table(findings), lengths_table(findings), promises_table(findings), ablation_table(findings.study)]
    others += [quality_table(findings), sizes_table(findings)]
    for table in others:
        if table is not None:
            yield table
    if len(findings.study.written):
        yield _summary_table(findings.study)
    if findings.study.failures:
        yield _failures_table(findings.study)


def _summary_table(study: StudyFiles) -> Table:
    """All combinations, with the columns that hold anything."""
    written = study.written
    counted = (*COUNTS, *RATIOS_WITH_ENDS, *TIMES, *LATENCIES)
    wanted = ["pair", *study.varying, "tree", "budget", "nodes", "depth", *counted, "combination"]
    columns = [name for name in dict.fromkeys(wanted) if name in written and (written[name] != "").any()]
    rows = list(written[columns].map(visible).itertuples(index=False, name=None))
    estimates = " Columns that begin with est_ are estimates." if set(columns) & set(ESTIMATES) else ""
    brief = tuple(name for name in ("pair", *study.varying, *BRIEF) if name in columns)
    note = say("Numbers as summary.csv has them.{}", estimates)
    return Table("summary", "All combinations", tuple(columns), rows, note, brief)


def _failures_table(study: StudyFiles) -> Table:
    keys = ("combination", "prompt_id", "error", "overrides")
    rows = [tuple(visible(failure.get(key) or "–") for key in keys) for failure in study.failures]
    return Table("failures", "What failed", ("combination", "prompt", "error", "to repeat it"), rows)
