"""The report as one HTML page that works without a network: figures are drawn by Vega, which is in the page."""

from __future__ import annotations

import gzip
import json
import os
from base64 import b64encode
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup, escape

from specdraft.errors import ResultsError
from specdraft.report.controls import ALWAYS
from specdraft.report.controls import METRICS as METRIC_FIGURES
from specdraft.report.document import Document
from specdraft.report.table import Table, full
from specdraft.report.texts import LIMITS, METRICS, REFERENCES
from specdraft.report.words import Name, Strong, Text
from specdraft.results.files import write_atomically

PARTS = ("report.css", "figures.js", "tables.js", "steps.js", "controls.js")
PAGE_ROWS = 50  # of a table at a time; sorting, finding and copying work on all
BUNDLE = "window.specdraftEmbed = vegaEmbed;"
WHOLE = "\n// whole\n"  # ends a bundle that was written to its end


def html_page(document: Document) -> str:
    """The page."""
    folder = files("specdraft.report").joinpath("templates")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"words": as_html, "json": _json, "rows": _rows}
    template = environment.from_string(folder.joinpath("report.html.j2").read_text(encoding="utf-8"))
    parts = {name: Markup(folder.joinpath(name).read_text(encoding="utf-8")) for name in PARTS}
    drawn = any(figure.spec for figure in document.drawn.figures)
    return template.render(
        document=document,
        parts=parts,
        metrics=METRICS,
        limits=LIMITS,
        references=REFERENCES,
        page_rows=PAGE_ROWS,
        vega=Markup(vega_bundle()) if drawn else "",
        datasets={name: columnar(table) for name, table in document.drawn.datasets.items()},
        specs={figure.name: figure.spec for figure in document.drawn.figures if figure.spec},
        steps={
            f"{one.combination}/{name}": packed(page) for one in document.drills for name, page in one.pages.items()
        },
        choices=set(METRIC_FIGURES) - {ALWAYS},
        long=is_long,
        full=full,
    )


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, safe inside a script element.

    Making it takes seconds, so it is kept in the user's cache folder, by the version of what makes it.
    """
    import vl_convert

    kept = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "specdraft"
        / f"vega-{version('vl-convert-python')}.js"
    )
    with suppress(OSError, ValueError):
        if (text := kept.read_text(encoding="utf-8")).endswith(WHOLE):
            return text
    made = str(vl_convert.javascript_bundle(BUNDLE)).replace("</script", "<\\/script").replace("<!--", "<\\!--") + WHOLE
    with suppress(OSError, ResultsError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, made)
    return made


def columnar(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Column -> values, NaN as null: names are written once, not once per row."""
    return {str(name): table[name].astype(object).where(table[name].notna(), None).tolist() for name in table}


def packed(text: str) -> str:
    """A text as a script element holds it in a tenth of its size: gzip, base64."""
    return b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def is_long(table: Table) -> bool:
    """The page holds the rest of the rows as data."""
    return len(table.rows) > PAGE_ROWS


def _rows(table: Table) -> list[list[str | list[str]]]:
    """Every cell as it is shown, or with how it is written in full behind it."""
    return [[[cell, full(cell)] if cell != full(cell) else cell for cell in row] for row in table.rows]


def as_html(text: Text) -> Markup:
    """A text with its names as code, each in a direction of its own."""
    pieces = []
    for piece in text:
        inner = escape(str(piece))
        if isinstance(piece, Name):
            pieces.append(Markup("<code><bdi>{}</bdi></code>").format(inner))
        else:
            pieces.append(Markup("<strong>{}</strong>").format(inner) if isinstance(piece, Strong) else inner)
    return Markup("").join(pieces)


def _json(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)
