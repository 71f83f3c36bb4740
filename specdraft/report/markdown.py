"""The report as Markdown, for a repository: the same document, pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from specdraft.report.document import Document
from specdraft.report.table import Table
from specdraft.report.texts import LIMITS, METRICS, REFERENCES
from specdraft.report.words import Name, Strong, Text

MOST_ROWS = 300
SPECIAL = re.compile(r"([\\`*_\[\]#|<>~$&])")


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, also in a table's cell."""
    return SPECIAL.sub(r"\\\1", text).replace("\n", " ")


def code(text: str) -> str:
    """A word as code, whatever it holds: longer fences round backticks, bars escaped for tables."""
    if not text.strip():
        return escaped(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text.replace('|', chr(92) + '|')}{pad}{fence}"


def words(text: Text) -> str:
    """A text with its names as code."""
    return "".join(
        code(piece)
        if isinstance(piece, Name)
        else f"**{escaped(piece)}**"
        if isinstance(piece, Strong)
        else escaped(piece)
        for piece in text
    )


def paragraphs(texts: Iterable[Text]) -> list[str]:
    """Lines: each text with an empty one below it."""
    return [line for text in texts for line in (words(text), "")]


def markdown_page(document: Document, picture: Callable[[str], str | None]) -> str:
    """The page.

    Args:
        document: what it says.
        picture: a figure's name -> where its PNG is, seen from the page; None where there is none.
    """
    lines = [f"# {escaped(document.heading)} Study {code(document.title)}", ""]
    lines += [*paragraphs(document.question), "## Answer", "", *paragraphs(document.answer)]
    lines += [
        f"**Confidence.** {escaped(document.confidence.word)}.",
        "",
        *(f"- {words(reason)}" for reason in document.confidence.reasons),
        "",
    ]
    if document.gaps:
        lines += ["**What is missing.**", "", *(f"- {words(gap)}" for gap in document.gaps), ""]
    if document.headline:
        lines += _table(document.headline)
    if document.drawn.figures:
        lines += ["## Figures", ""]
    for figure in document.drawn.figures:
        lines += [f"### {escaped(figure.title)}", ""]
        if figure.spec and (where := picture(figure.name)):
            lines += [f"![{escaped(figure.title)}](<{where}>)", ""]
        lines += [words(figure.caption), ""]
    if document.tables:
        lines += ["## Tables", ""]
    for table in document.tables:
        lines += [f"### {escaped(table.title)}", "", *_table(table)]
    lines += ["## What was run", "", *(f"- {escaped(label)}: {words(text)}" for label, text in document.run), ""]
    lines += [
        "## How each metric is defined",
        "",
        *(f"- `{name}`: {escaped(meaning)}" for name, meaning in METRICS),
        "",
    ]
    lines += ["## Limits", "", *(f"- {words(limit)}" for limit in LIMITS), ""]
    lines += ["## References", "", *(f"- {escaped(reference)}" for reference in REFERENCES), ""]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    note = [words(table.note), ""] if table.note else []
    if len(table.rows) > MOST_ROWS:
        return [f"{len(table.rows):,} rows, too many for this page: see the HTML report, or summary.csv.", "", *note]
    kept = [table.columns.index(name) for name in table.brief or table.columns]
    lines = [f"| {' | '.join(escaped(table.columns[i]) for i in kept)} |", f"|{' --- |' * len(kept)}"]
    lines += [f"| {' | '.join(escaped(row[i]) for i in kept)} |" for row in table.rows]
    return [*lines, "", *note]
