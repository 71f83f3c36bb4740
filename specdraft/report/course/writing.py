"""A paper as files: Markdown with its figures beside it, and one HTML page with the figures within.

Figures are SVG whose words are text: whoever reads them brings the fonts, so that Chinese needs none here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from specdraft.report.course.blocks import Chart, Grid, Heading, Numbered, Paper, Paragraph, Points
from specdraft.report.markdown import escaped, words
from specdraft.report.page import as_html
from specdraft.results.files import check_folder_writable, write_atomically

PICTURES = "course-figures"
SIZED = re.compile(r'(<svg[^>]*?) width="[\d.]+" height="[\d.]+"')


def write_paper(paper: Paper, folder: Path) -> list[Path]:
    """Write the paper and its figures; returns the pages. Raises `ResultsError`."""
    import vl_convert

    suffix = "" if paper.language == "en" else f".{paper.language}"
    pictures = folder / PICTURES / paper.language
    for made in (folder / PICTURES, pictures):
        check_folder_writable(made)
    drawn = {
        chart.name: _with_own_names(str(vl_convert.vegalite_to_svg(chart.spec)), chart.name) for chart in paper.charts
    }
    for name, svg in drawn.items():
        write_atomically(pictures / f"{name}.svg", svg)
    pages = {
        folder / f"COURSE_REPORT{suffix}.md": "\n".join(
            markdown(paper, lambda name: f"{PICTURES}/{paper.language}/{name}.svg")
        ),
        folder / f"course-report{suffix}.html": html(paper, drawn),
    }
    for path, text in pages.items():
        write_atomically(path, text + "\n")
    return list(pages)


def markdown(paper: Paper, picture: Callable[[str], str]) -> Iterator[str]:
    """The paper's lines; `picture`: a figure's name -> where it is, seen from the page."""
    yield from (f"# {escaped(paper.title)}", "")
    for block in paper.blocks:
        match block:
            case Heading(text, level):
                yield from (f"{'#' * (level + 1)} {escaped(text)}", "")
            case Paragraph(text):
                yield from (words(text), "")
            case Points(texts):
                yield from (*(f"- {words(text)}" for text in texts), "")
            case Numbered(label, Grid() as grid):
                yield from (f"**{escaped(label)}. {escaped(grid.title)}.** {words(grid.note)}".rstrip(), "")
                yield from (*_grid(grid), "")
            case Numbered(label, Chart() as chart):
                yield from (f"![{escaped(chart.title)}](<{picture(chart.name)}>)", "")
                yield from (f"**{escaped(label)}. {escaped(chart.title)}.** {words(chart.caption)}", "")


def _grid(grid: Grid) -> Iterator[str]:
    yield f"| {' | '.join(escaped(column) for column in grid.columns)} |"
    yield f"| --- |{' ---: |' * (len(grid.columns) - 1)}"
    for row in grid.rows:
        yield f"| {' | '.join(words(cell) for cell in row)} |"


def html(paper: Paper, drawn: dict[str, str]) -> str:
    """The paper as one page; `drawn`: each figure's SVG by its name."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"words": as_html}
    source = files("specdraft.report.course").joinpath("paper.html.j2").read_text(encoding="utf-8")
    figures = {name: Markup(SIZED.sub(r"\1", svg, count=1)) for name, svg in drawn.items()}
    return environment.from_string(source).render(
        paper=paper, figures=figures, kinds=[type(block).__name__ for block in paper.blocks], is_grid=_is_grid
    )


def _with_own_names(svg: str, name: str) -> str:
    """A figure whose parts have names that no other figure on the page has."""
    return svg.replace('id="', f'id="{name}-').replace("url(#", f"url(#{name}-")


def _is_grid(block: Numbered) -> bool:
    return isinstance(block.content, Grid)
