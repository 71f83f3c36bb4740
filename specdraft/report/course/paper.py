"""The paper: its sections in their order, filled from a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from specdraft.errors import ResultsError
from specdraft.report.attention import TABLE, read_attention
from specdraft.report.course.analyses import analyses
from specdraft.report.course.asked import Analysis
from specdraft.report.course.attention_part import AttentionPart
from specdraft.report.course.blocks import Block, Chart, Grid, Heading, Numbered, Paper, Paragraph, Points
from specdraft.report.course.catalogue import Catalogue
from specdraft.report.course.drawings import curves
from specdraft.report.course.measures import Measures, measures_of
from specdraft.report.course.setup import Setup
from specdraft.report.course.tables import Leader, efficiency_table, leaders, main_shapes, rules_table
from specdraft.report.course.theory_part import theory_part
from specdraft.report.course.tree_figure import tree_chart
from specdraft.report.words import Name, Text
from specdraft.results.study_tables import StudyTables, load_study

COMMAND = "scripts/reproduce_course_report.sh"
ATTENTION = "attention"  # folder of `specdraft bench attention` in the study's
QUESTIONS = ("rank", "depth", "gain", "cost", "width", "sampling", "category", "siblings")
CONCLUDED = {"rank", "depth", "gain", "siblings"}  # what the last paragraph rests on


@dataclass
class Writing:
    """A paper as it grows: figures and tables are numbered as they come."""

    texts: Catalogue
    blocks: list[Block] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def section(self, key: str, level: int = 1) -> None:
        """A heading."""
        self.blocks.append(Heading(self.texts.label(f"{key}.title"), level))

    def say(self, *texts: Text) -> None:
        """A paragraph each."""
        self.blocks += [Paragraph(text) for text in texts if text]

    def points(self, texts: list[Text]) -> None:
        """A list."""
        self.blocks.append(Points(texts))

    def show(self, content: Chart | Grid | None, key: str) -> None:
        """A figure or table with the next number."""
        if content is not None:
            kind = "figure" if isinstance(content, Chart) else "table"
            self._counts[kind] += 1
            label = self.texts.label(f"{kind}_number", number=self._counts[kind])
            self.numbers[f"{kind}:{key}"] = label
            self.blocks.append(Numbered(label, content))


@dataclass(frozen=True)
class Course:
    """What a course report is written from.

    Attributes:
        folder: of the study; studies of other targets are in folders below it.
    """

    folder: Path
    studies: list[StudyTables]
    measures: Measures
    attention: AttentionPart | None
    texts: Catalogue

    def folder_of(self, pair: str) -> Path:
        """The study that a pair is in."""
        return next(study.folder for study in self.studies if pair in set(study.summary["pair"]))


def read_course(folder: Path, texts: Catalogue) -> Course:
    """Read a study, those in folders below it, and the benchmark of tree attention where there is one.

    Raises:
        ResultsError: it holds no study, or one without its table of prompts.
    """
    below = sorted(path.parent for path in folder.glob("*/summary.csv"))
    studies = [load_study(path) for path in (folder, *below)]
    records = [study.records for study in studies if study.records is not None]
    if len(records) < len(studies):
        raise ResultsError(f"{folder}: a course report needs records.csv (run without output.records=none)")
    there = (folder / ATTENTION / TABLE).is_file() or (folder / ATTENTION).is_dir()
    attention = AttentionPart(read_attention(folder / ATTENTION), texts) if there else None
    return Course(folder, studies, measures_of(pd.concat(records, ignore_index=True)), attention, texts)


def compose(course: Course) -> Paper:
    """The paper."""
    texts, writing = course.texts, Writing(course.texts)
    found = analyses(course.measures, texts)
    first = list(leaders(course.measures))
    _opening(writing, course, first, found)
    _method(writing, course)
    _results(writing, course, first)
    _why(writing, found)
    _closing(writing, course, first, found)
    return Paper(texts.language, texts.label("title"), writing.blocks)


def _opening(writing: Writing, course: Course, first: list[Leader], found: list[Analysis]) -> None:
    texts = writing.texts
    writing.section("abstract")
    writing.say(texts.say("abstract.question"), *_headline(texts, first))
    writing.say(*(analysis.sentences[0] for analysis in found if analysis.key in ("depth", "cost")))
    writing.section("introduction")
    writing.say(*texts.paragraphs("introduction.paragraphs"))
    writing.section("questions")
    writing.say(texts.say("questions.lead"))
    asked = [analysis.key for analysis in found]
    writing.points([texts.say(f"{key}.question") for key in QUESTIONS if key in asked])
    writing.section("related")
    writing.say(*texts.paragraphs("related.paragraphs"))


def _headline(texts: Catalogue, first: list[Leader]) -> Iterator[Text]:
    """Who leads at the largest budget of each pair."""
    for pair in dict.fromkeys(one.pair for one in first):
        one = max((one for one in first if one.pair == pair), key=lambda one: one.budget)
        yield _lead(texts, one)


def _lead(texts: Catalogue, one: Leader) -> Text:
    verdict = "verdict.unknown" if not one.lead.known else "verdict.clear" if one.lead.low > 0 else "verdict.open"
    return texts.say("results.lead", pair=Name(one.pair), nodes=one.budget, tree=Name(one.tree), value=one.value,
                     runner=Name(one.runner), lead=one.lead, verdict=texts.label(verdict))  # fmt: skip


def _method(writing: Writing, course: Course) -> None:
    texts, setup = writing.texts, Setup(course.studies, writing.texts)
    writing.section("method")
    for part in ("definitions", "trees", "pairs", "prompts", "texts", "statistics"):
        writing.section(f"method.{part}", 2)
        writing.say(*texts.paragraphs(f"method.{part}.paragraphs"))
        if part == "definitions":
            writing.points(texts.paragraphs("method.definitions.points"))
        elif part == "trees":
            writing.points(texts.paragraphs("method.trees.points"))
            writing.show(tree_chart(course.folder, course.measures.pairs[0], texts), "trees")
        elif part == "pairs":
            writing.show(setup.pairs(), "pairs")
        elif part == "prompts":
            writing.show(setup.prompts(), "prompts")
    writing.section("setup")
    writing.points([*setup.machine(), *texts.paragraphs("setup.paragraphs")])


def _results(writing: Writing, course: Course, first: list[Leader]) -> None:
    texts, measures = writing.texts, course.measures
    writing.section("results")
    writing.show(_overview(measures, texts), "results")
    writing.say(*_headline(texts, first))
    clear = sum(one.lead.known and one.lead.low > 0 for one in first)
    writing.say(texts.say("results.clear", clear=clear, all=len(first)))
    writing.show(efficiency_table(measures, measures.pairs[0], texts), "main")
    if course.attention:
        writing.section("attention", 2)
        writing.say(*course.attention.sentences())
        writing.show(course.attention.chart, "attention")
        writing.show(course.attention.grid, "attention")
    if theory := theory_part(course.studies, texts):
        grid, said = theory
        writing.section("theory", 2)
        writing.show(grid, "theory")
        writing.say(said)


def _overview(measures: Measures, texts: Catalogue) -> Chart:
    points = [
        {"panel": pair, "series": tree, "at": one.budget}
        | dict(zip(("value", "low", "high"), measures.ratio(one), strict=True))
        for pair in measures.pairs
        for tree, settings in main_shapes(measures, pair, 0.0).items()
        for one in settings
    ]
    x, y, series = (texts.label(key) for key in ("nodes", "efficiency", "shape"))
    spec = curves(pd.DataFrame(points), x, y, series, str(texts.of("font")), rule=1)
    return Chart("results", texts.label("results.figure"), texts.say("results.caption"), spec, "records.csv")


def _why(writing: Writing, found: list[Analysis]) -> None:
    texts = writing.texts
    writing.section("why")
    writing.say(texts.say("why.lead"))
    for analysis in found:
        writing.section(analysis.key, 2)
        writing.show(analysis.chart, analysis.key)
        writing.show(analysis.grid, analysis.key)
        writing.say(*analysis.sentences, *explain(texts, [analysis], f"{analysis.key}.why"))
    if missing := [key for key in QUESTIONS if key not in {analysis.key for analysis in found}]:
        names = texts.names(texts.label(f"{key}.title") for key in missing)
        writing.say(texts.say("why.missing", names=names, command=Name(COMMAND)))


def explain(texts: Catalogue, found: list[Analysis], key: str) -> list[Text]:
    """An explanation, and the pairs that it is not true of; none where those are the most."""
    if not all(analysis.common for analysis in found):
        return [texts.say("why.otherwise")]
    exceptions = dict.fromkeys(pair for analysis in found for pair in analysis.exceptions)
    return [*texts.paragraphs(key), *([texts.say("why.except", names=texts.names(exceptions))] if exceptions else [])]


def _closing(writing: Writing, course: Course, first: list[Leader], found: list[Analysis]) -> None:
    texts, measures = writing.texts, course.measures
    writing.section("threats")
    writing.points(texts.paragraphs("threats.points"))
    writing.section("conclusion")
    writing.say(texts.say("conclusion.lead"))
    writing.points([
        texts.say("conclusion.see", sentence=analysis.sentences[-1], figure=writing.numbers[f"figure:{analysis.key}"],
                  table=writing.numbers[f"table:{analysis.key}"])
        for analysis in found
    ])  # fmt: skip
    concluded = [analysis for analysis in found if analysis.key in CONCLUDED]
    if len(concluded) == len(CONCLUDED):
        writing.say(*explain(texts, concluded, "conclusion.paragraphs"))
    writing.section("references")
    writing.points([(f"[{number}] {text}",) for number, text in enumerate(texts.references.values(), start=1)])
    writing.section("appendix")
    for pair in measures.pairs[1:]:
        writing.show(efficiency_table(measures, pair, texts), f"efficiency {pair}")
    for pair in measures.pairs:
        writing.show(efficiency_table(measures, pair, texts, "acceptance_length"), f"length {pair}")
        writing.show(efficiency_table(measures, pair, texts, "acceptance_rate"), f"rate {pair}")
        writing.show(rules_table(measures, pair, texts), f"rules {pair}")
    writing.section("claims")
    writing.say(texts.say("claims.lead", command=Name(COMMAND)))
    writing.blocks.append(Numbered(texts.label("claims.number"), _claims(writing)))


def _claims(writing: Writing) -> Grid:
    """Figure or table -> the file that it is drawn from -> the command that makes it."""
    rows: list[list[Text]] = []
    for block in writing.blocks:
        if isinstance(block, Numbered):
            source = block.content.source
            command = f"specdraft bench {ATTENTION}" if source.startswith(ATTENTION) else "specdraft sweep"
            rows.append([(block.label,), (block.content.title,), (Name(source),), (Name(command),)])
    return Grid(writing.texts.label("claims.title"), writing.texts.of("claims.columns"), rows, "")
