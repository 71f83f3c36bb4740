"""What a report holds, before it becomes HTML or Markdown: both are written from this, so they say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from specdraft.report.answer import answer
from specdraft.report.confidence import Confidence, confidence, gaps
from specdraft.report.controls import Controls, controls
from specdraft.report.drill import Drill
from specdraft.report.figures import draw
from specdraft.report.figures.base import Drawn
from specdraft.report.findings import Findings, findings_of
from specdraft.report.leads import ALONE
from specdraft.report.replays import drills
from specdraft.report.run_facts import Fact, run_facts
from specdraft.report.study_files import StudyFiles, visible
from specdraft.report.table import Table
from specdraft.report.tables import tables, winners_table
from specdraft.report.texts import ASKED, QUESTION
from specdraft.report.words import Text, names, say

if TYPE_CHECKING:
    from specdraft.study.combination import Combination

MOST_HEADLINES = 6
HEADING = "Which draft tree gets the most tokens accepted?"


@dataclass
class Document:
    """A report in the order in which it is read."""

    title: str
    question: list[Text]
    answer: list[Text]
    confidence: Confidence
    gaps: list[Text]
    tiles: list[tuple[str, str]]
    headline: Table | None
    drawn: Drawn
    tables: list[Table] = field(default_factory=list)
    run: list[Fact] = field(default_factory=list)
    heading: str = HEADING
    drills: list[Drill] = field(default_factory=list)
    controls: Controls = field(default_factory=Controls)


def compose(
    study: StudyFiles, figures: bool = True, drilled: bool = False, planned: Sequence[Combination] = ()
) -> Document:
    """A study's report.

    Args:
        study: its files.
        figures: left out if only its words are wanted.
        drilled: with its leaders' prompts and their steps, which takes models and traces.
        planned: its combinations, where they are at hand.
    """
    findings = findings_of(study)
    drawn = draw(findings) if figures else Drawn()
    drilled_prompts = drills(findings, planned) if drilled else []
    return Document(
        title=study.name,
        question=_question(findings),
        answer=answer(findings),
        confidence=confidence(findings),
        gaps=list(gaps(findings)),
        tiles=_tiles(findings),
        headline=_headline(findings),
        drawn=drawn,
        tables=list(tables(findings)),
        run=run_facts(study),
        drills=drilled_prompts,
        controls=controls(findings, drawn, drilled_prompts),
    )


def _headline(findings: Findings) -> Table | None:
    heads = sorted(findings.headlines.values(), key=lambda lead: lead.verdict == ALONE)  # those with a rival first
    return winners_table("headline", "In short", heads[:MOST_HEADLINES], len(heads)) if heads else None


def _question(findings: Findings) -> list[Text]:
    rows = findings.rows
    if rows.empty:
        return [say("{}", QUESTION), say("Which {}", ASKED)]
    pairs = names([visible(pair) for pair in dict.fromkeys(rows["pair"])])
    of = "the model pair" if rows["pair"].nunique() == 1 else "the model pairs"
    return [say("{}", QUESTION), say("For {} {}: which {}", of, pairs, ASKED)]


def _tiles(findings: Findings) -> list[tuple[str, str]]:
    rows = findings.rows
    live, replayed = findings.decoded_live.any(), not findings.decoded_live.all()
    engines = "replayed and live" if live and replayed else "decoded live" if live else "replayed"
    counts = [
        (rows["pair"].nunique(), "model pair", ""),
        (rows["tree"].nunique(), "shape", ""),
        (rows["budget"].nunique(), "budget", ""),
        (findings.prompts, "prompt", ""),
        (len(rows), "combination", f", {engines}"),
    ]
    tiles = [
        ("?" if count is None else f"{count:,}", f"{word}{'' if count == 1 else 's'}{more}")
        for count, word, more in counts
    ]
    if len(findings.study.panels) > rows["pair"].nunique():
        tiles.insert(1, (f"{len(findings.study.panels):,}", "settings"))
    return tiles if len(rows) else tiles[3:4]
