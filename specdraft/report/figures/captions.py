"""What several captions say: what is left out, and who leads."""

from __future__ import annotations

from specdraft.report.figures.canvas import CHAIN, MOST_DETAIL_PANELS, MOST_SPOKEN, Canvas
from specdraft.report.leads import lead_sentence
from specdraft.report.study_files import visible
from specdraft.report.words import Text, join, names, say
from specdraft.trees.shapes import is_reference


def left_out(canvas: Canvas, shapes: bool = True) -> Text:
    """How many shapes (if they are cut at all) and settings are not drawn."""
    sentences = []
    drawn = sum(not is_reference(tree) for tree in canvas.trees)
    if shapes and drawn < canvas.all_shapes:
        sentences.append(
            say(
                "Of {} shapes the {} with the highest block efficiency are drawn{}; the tables have all.",
                canvas.all_shapes,
                drawn,
                ", chain among them" if CHAIN in canvas.trees else "",
            )
        )
    panels = len(canvas.findings.study.panels)
    if len(canvas.panels) < panels:
        sentences.append(say("{} of {} settings are drawn; the tables have all.", len(canvas.panels), panels))
    return join(sentences)


def left_out_details(canvas: Canvas) -> Text:
    """How many settings a figure of details does not draw."""
    panels = len(canvas.findings.study.panels)
    return say("{} of {} settings are drawn.", MOST_DETAIL_PANELS, panels) if panels > MOST_DETAIL_PANELS else ()


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
    fitted = "{} (grey) is fitted on the very prompts that it is scored on: a reference only, which may not win."
    return say(fitted, names(shown)) if shown else ()
