"""Charts of a benchmark: as pictures, and on one page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from specdraft.report.page import vega_bundle
from specdraft.report.words import Text, plain
from specdraft.results.files import check_folder_writable, write_atomically

PICTURES, SCALE = "figures", 1.35


def write_charts(folder: Path, charts: Mapping[str, dict[str, Any]]) -> None:
    """Each as a picture, and as the specification that it is drawn from. Raises `ResultsError`.

    Args:
        folder: of the results.
        charts: name -> Vega-Lite specification, its data within.
    """
    import vl_convert

    check_folder_writable(folder / PICTURES)
    for name, chart in charts.items():
        write_atomically(folder / PICTURES / f"{name}.vl.json", json.dumps(chart, indent=1) + "\n")
        picture = vl_convert.vegalite_to_png(chart | {"background": "white"}, scale=SCALE)
        write_atomically(folder / PICTURES / f"{name}.png", picture)


def charts_page(title: str, charts: Mapping[str, dict[str, Any]], texts: Iterable[Text] = ()) -> str:
    """A page of charts, below them what they show, that asks for nothing from a network."""
    figures = "".join(f'<figure id="{name}"></figure>' for name in charts)
    said = "".join(f"<p>{escape(plain(text))}</p>" for text in texts)
    specs = json.dumps(charts).replace("<", "\\u003c")
    drawing = f"for (const [name, spec] of Object.entries({specs})) specdraftEmbed('#' + name, spec);"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    scripts = f"<script>{vega_bundle()}</script><script>{drawing}</script>"
    return f"{head}<h1>{escape(title)}</h1>{figures}{said}{scripts}</html>\n"
