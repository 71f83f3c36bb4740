"""Several studies in one report: each one's answer, one common figure, and their tables with a column `study`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from specdraft.errors import ConfigError
from specdraft.report.confidence import Confidence
from specdraft.report.document import Document, compose
from specdraft.report.figures.base import Drawn, drawn, named, together
from specdraft.report.figures.canvas import spread
from specdraft.report.figures.charts import METRIC_TITLES
from specdraft.report.findings import Findings, findings_of
from specdraft.report.markdown import markdown_page
from specdraft.report.marks import SYMBOLS
from specdraft.report.page import html_page
from specdraft.report.run_facts import Fact
from specdraft.report.study_files import StudyFiles, read_study
from specdraft.report.table import Table
from specdraft.report.texts import QUESTION
from specdraft.report.theme import COLOURS
from specdraft.report.words import Strong, Text, names, plural, say
from specdraft.results.files import check_file_writable, write_atomically
from specdraft.results.study_side import refuse_twice, tell_apart

STUDY = "study"
ENDINGS = (".html", ".md")
HEADING = "Which draft tree gets the most tokens accepted, in each of several studies?"
MOST_LINES = 9  # settings in the common figure: as many as there are colours


def write_several(folders: Sequence[Path], out: Path | None) -> Path:
    """Write one page of several studies, HTML or Markdown as its name ends; the studies' own pages stay as they are.

    Raises:
        ConfigError: nobody says where the page goes.
        ResultsError: a folder holds no results or is there twice, or the page cannot be written.
    """
    if out is None:
        raise ConfigError("a report of several studies needs --out PAGE.html (or .md)")
    refuse_twice(folders)
    studies = [read_study(folder) for folder in folders]
    check_file_writable(out, "--out", ENDINGS)
    document = compose_several(studies)
    markdown = out.suffix.lower() == ".md"
    write_atomically(out, markdown_page(document, lambda name: None) if markdown else html_page(document))
    return out


def compose_several(studies: Sequence[StudyFiles]) -> Document:
    """One report of several studies, in their order."""
    called = tell_apart([(study.name, study.folder) for study in studies])
    documents = {name: compose(study, figures=False) for name, study in zip(called, studies, strict=True)}
    findings = dict(zip(called, map(findings_of, studies), strict=True))
    headlines = {name: document.headline for name, document in documents.items() if document.headline is not None}
    return Document(
        title=", ".join(called),
        heading=HEADING,
        question=[say("{}", QUESTION), say("{}: {}.", plural(len(studies), "study", "studies"), names(called))],
        answer=_answers(documents),
        confidence=Confidence(
            "Each study's own",
            [
                say("{}: {}. {}", Strong(name), one.confidence.word, next(iter(one.confidence.reasons), ()))
                for name, one in documents.items()
            ],
        ),
        gaps=[say("{}: {}", Strong(name), gap) for name, one in documents.items() for gap in one.gaps],
        tiles=_tiles(findings),
        headline=merged(headlines) if headlines else None,
        drawn=_figures(findings),
        tables=_tables(documents),
        run=[Fact(f"{name}: {fact.label}", fact.text) for name, one in documents.items() for fact in one.run],
    )


def _answers(documents: dict[str, Document]) -> list[Text]:
    """What is common to all, then each study's own sentences."""
    sentences = [say("{}: {}", Strong(name), text) for name, one in documents.items() for text in one.answer]
    return [say("Each study answers for its own models, prompts and settings:"), *sentences]


def _tiles(findings: dict[str, Findings]) -> list[tuple[str, str]]:
    rows = pd.concat([one.rows[["pair", "tree", "budget"]] for one in findings.values()])
    counts = [(len(findings), "studies"), (len(rows), "combinations")]
    counts += [(rows[key].nunique(), f"{key}s") for key in ("pair", "tree", "budget")]
    return [(f"{count:,}", label) for count, label in counts]


def _tables(documents: dict[str, Document]) -> list[Table]:
    """Tables of one name as one, in the order in which they first stand."""
    by_name: dict[str, dict[str, Table]] = {}
    for study, document in documents.items():
        for table in document.tables:
            by_name.setdefault(table.name, {})[study] = table
    return [merged(of_studies) for of_studies in by_name.values()]


def merged(tables: dict[str, Table]) -> Table:
    """One table of several studies' ones: a column that a study does not have is empty in its rows."""
    first = next(iter(tables.values()))
    columns = list(dict.fromkeys(column for table in tables.values() for column in table.columns))
    brief = list(dict.fromkeys(column for table in tables.values() for column in table.brief))
    rows = [
        (study, *(dict(zip(table.columns, row, strict=True)).get(column, "") for column in columns))
        for study, table in tables.items()
        for row in table.rows
    ]
    notes = list(dict.fromkeys(table.note for table in tables.values() if table.note))
    same = notes[0] if len(notes) == 1 else ()
    return Table(f"all-{first.name}", first.title, (STUDY, *columns), rows, same, (STUDY, *brief) if brief else ())


def _figures(findings: dict[str, Findings]) -> Drawn:
    """Who leads at each budget, of every study."""
    table = pd.DataFrame(
        {"study": study, "line": f"{study} · {lead.panel}", "budget": lead.budget, "shown": lead.said(lead.tree),
         "value": lead.value.value, "low": lead.value.low, "high": lead.value.high}
        for study, one in findings.items()
        for lead in one.leads
    )  # fmt: skip
    if table.empty:
        return Drawn()
    lines = list(dict.fromkeys(table["line"]))
    caption = say(
        "At each node budget the block efficiency of the shape that came out first there, with its 95 % interval, a "
        "line for each setting of each study{}. Studies differ in more than their trees: lines say how far each "
        "goes, not what makes it so. The leader is picked after looking, which flatters it.",
        f" ({MOST_LINES} of {len(lines)} are drawn; the table of winners has all)" if len(lines) > MOST_LINES else "",
    )
    shown = spread(lines, dict(zip(table["line"], table["study"], strict=True)), MOST_LINES)
    tables = {"studies": table[table["line"].isin(shown)]}
    return together([drawn("studies", "The best shape of each budget, by study", caption, _chart(shown), tables)])


def _chart(lines: list[str]) -> Any:
    x = alt.X("budget:Q", scale=alt.Scale(type="log", base=2), title="node budget")
    y = alt.Y("value:Q", scale=alt.Scale(zero=False), title=METRIC_TITLES["block_efficiency"])
    legend = alt.Legend(title="study and setting", columns=2, labelLimit=420, symbolOpacity=1)
    colours, markers = (list(islice(cycle(marks), len(lines))) for marks in (COLOURS, SYMBOLS))
    colour = alt.Color("line:N", scale=alt.Scale(domain=lines, range=colours), legend=legend)
    shape = alt.Shape("line:N", scale=alt.Scale(domain=lines, range=markers), legend=legend)
    tips = [alt.Tooltip("line:N", title="study and setting"), alt.Tooltip("shown:N", title="first"), "budget:Q",
            "value:Q", "low:Q", "high:Q"]  # fmt: skip
    whole = alt.Chart().mark_line(opacity=0.6).encode(x=x, y=y, color=colour)
    bars = alt.Chart().mark_rule(opacity=0.5).encode(x=x, y="low:Q", y2="high:Q", color=colour)
    points = alt.Chart().mark_point(size=60, opacity=1, filled=True)
    points = points.encode(x=x, y=y, color=colour, shape=shape, tooltip=tips)
    return alt.layer(whole, bars, points, data=named("studies")).properties(width=620, height=340)
