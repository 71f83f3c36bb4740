"""Steps as one page that works without a network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from specdraft.results.files import write_atomically
from specdraft.viewer.steps import Shown


def page(shown: Shown) -> str:
    """The page: everything on it is in it, and every text is escaped."""
    data = shown.as_data()
    return render("steps.html.j2", title=f"{shown.about['tree']}: {len(shown.steps)} verification steps", data=data)


def render(template: str, **values: Any) -> str:
    """One of this folder's templates; `tojson` in them is safe inside a script element."""
    folder = files("specdraft.viewer")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    parts = {
        name: folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "draw.js", "steps.js", "heat.js")
    }
    return environment.from_string(folder.joinpath(template).read_text(encoding="utf-8")).render(**values, parts=parts)


def write_page(shown: Shown, path: Path) -> None:
    """Write the page as a whole. Raises `ResultsError`."""
    write_atomically(path, page(shown))
