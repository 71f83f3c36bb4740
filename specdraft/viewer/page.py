"""Steps as one page that works without a network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from specdraft.errors import ConfigError
from specdraft.results.files import write_atomically
from specdraft.trees.step_picture import PHASES
from specdraft.viewer.phases import captions, tokens_per_pass
from specdraft.viewer.steps import Shown


def page(*shown: Shown) -> str:
    """The page: everything on it is in it, and every text is escaped. Several stand side by side, in step."""
    first, lanes = shown[0], [lane_data(one) for one in shown]
    steps = " and ".join(str(len(one.steps)) for one in shown)
    title = f"{' beside '.join(one.about['tree'] for one in shown)}: {steps} verification steps"
    same = {name: value for name, value in first.about.items() if all(one.about.get(name) == value for one in shown)}
    notes = list(dict.fromkeys(note for one in shown for note in one.notes))
    data = {"about": same, "notes": notes, "phases": PHASES, "lanes": lanes}
    return render("steps.html.j2", title=title, data=data)


def check_side_by_side(shown: Sequence[Shown]) -> None:
    """Raise `ConfigError` where several texts are not one: steps side by side would not be at the same place."""
    texts = [[one.first, *(token for step in one.steps for token in step.tokens)] for one in shown]
    if any(text != texts[0] for text in texts):
        raise ConfigError("two trees stand side by side along one text: expected one target, sampling and length")


def lane_data(shown: Shown) -> dict[str, Any]:
    """One text of a page: its data, with what each step's phases do and the tokens per pass so far."""
    data = shown.as_data()
    for step, told, count in zip(shown.steps, data["steps"], tokens_per_pass(shown.steps), strict=True):
        told |= {"phases": captions(step, shown.word), "per_pass": count}
    return data


def render(template: str, **values: Any) -> str:
    """One of this folder's templates; `tojson` in them is safe inside a script element."""
    folder = files("specdraft.viewer")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    parts = {
        name: folder.joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "draw.js", "lane.js", "steps.js", "heat.js")
    }
    return environment.from_string(folder.joinpath(template).read_text(encoding="utf-8")).render(**values, parts=parts)


def write_page(shown: Sequence[Shown], path: Path) -> None:
    """Write the page as a whole. Raises `ResultsError`."""
    write_atomically(path, page(*shown))
