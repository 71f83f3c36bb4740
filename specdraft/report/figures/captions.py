"""What several captions say: what is left out, and who leads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from specdraft.report.figures.canvas import CHAIN, MOST_SPOKEN, Canvas
from specdraft.report.leads import lead_sentence
from specdraft.report.study_files import visible
from specdraft.report.words import Text, join, names, say
from specdraft.trees.shapes import is_reference


def left_out(canvas: Canvas, shapes: bool = True) -> Text:
    """Which shapes (if they are cut at all) and settings are not drawn."""
    missing = canvas.shapes_not_drawn if shapes else []
    return join(
        [
            say(
                "Of {} shapes the {} with the highest block efficiency are drawn{}, not {}; the tables have all.",
                canvas.all_shapes,
                canvas.all_shapes - len(missing),
                ", chain among them" if CHAIN in canvas.trees else "",
                names(missing),
            )
            if missing
            else (),
            settings_left_out(canvas.findings.study.panels, canvas.panels),
        ]
    )


def settings_left_out(every: Sequence[str], drawn: Iterable[str]) -> Text:
    """Which settings a figure does not draw."""
    there = set(drawn)
    missing = [panel for panel in every if panel not in there]
    said = "{} of {} settings are drawn, not {}; the tables have all."
    return say(said, len(every) - len(missing), len(every), names(missing)) if missing else ()


def left_out_details(canvas: Canvas, drawn: Iterable[str]) -> Text:
    """Which of the study's settings a figure of details does not draw."""
    return settings_left_out(canvas.findings.study.panels, drawn)


def absent(canvas: Canvas, file: str) -> Text:
    """Why a figure of details is not drawn."""
    there = file in canvas.findings.study.details
    why = "it has no rows of the leading shapes" if there else "it is missing or damaged"
    return say("Not drawn from {}: {}.", file, why)


def leaders(canvas: Canvas) -> Text:
    """The headlines of the drawn panels."""
    heads = [lead for panel, lead in canvas.findings.headlines.items() if panel in canvas.panels]
    more = len(heads) - MOST_SPOKEN
    return join(
        [
            join(lead_sentence(lead) for lead in heads[:MOST_SPOKEN]),
            say("{} more panels: see the table of winners.", more) if more > 0 else (),
            say("The dashed line at 1 is plain decoding."),
            _about_references(canvas),
        ]
    )


def _about_references(canvas: Canvas) -> Text:
    shown = [visible(tree) for tree in canvas.trees if is_reference(tree)]
    fitted = "{} (grey) is fitted on the very prompts that it is scored on: a reference, never a winner."
    return say(fitted, names(shown)) if shown else ()
