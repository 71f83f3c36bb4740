"""Speed-ups over the node budget: measured where decoding was live, estimated where it was replayed."""

from __future__ import annotations

from specdraft.report.answer import against_one
from specdraft.report.cross_fit import best_row
from specdraft.report.figures.base import Figure
from specdraft.report.figures.canvas import MOST_SPOKEN, Canvas
from specdraft.report.figures.metrics import metric_figure
from specdraft.report.findings import fair
from specdraft.report.words import Name, Strong, Text, join, plural, say


def measured_speedup(canvas: Canvas) -> Figure | None:
    """Against plain decoding in the same run; None where nothing was decoded live."""
    if canvas.findings.live.empty:
        return None
    note = say("Measured against plain decoding in the same run, on the hardware named below.")
    caption = join([*_fastest(canvas, "speedup", "{}: fastest is {} at {}, {}: {}."), note])
    budgets = canvas.curves.loc[canvas.curves["speedup"].notna(), "budget"]
    title = "Measured speed-up over plain decoding, by node budget"
    return metric_figure(canvas, "speedup", title, caption, plain=True, single=budgets.nunique() == 1)


def estimated_speedup(canvas: Canvas) -> Figure | None:
    """From the counts and the pair's measured costs; None where nothing was replayed."""
    if canvas.findings.estimated.empty:
        return None
    note = say(
        "{} computed from accepted tokens and the pair's measured cost of drafting and verifying. Intervals are over "
        "prompts, and hold the spread of the measured costs.",
        Strong("An estimate, not a measurement:"),
    )
    caption = join([note, *_fastest(canvas, "est_speedup", "{}: highest for {} at {}, {}; {}.")])
    title = "Estimated speed-up (replay; not measured), by node budget"
    return metric_figure(canvas, "est_speedup", title, caption, plain=True)


def _fastest(canvas: Canvas, name: str, template: str) -> list[Text]:
    """The largest `name` of each panel: `template` takes panel, shape, nodes, value and what its interval
    supports."""
    sentences = []
    rows = canvas.curves[canvas.curves[name].notna()]
    for panel in canvas.panels_of(rows)[:MOST_SPOKEN]:
        ranked = fair(rows[rows["panel"] == panel])
        if len(ranked):
            top, speed = best_row(canvas.findings.halves, ranked, name)
            nodes = plural(int(top["budget"]), "node")
            sentences.append(say(template, Name(panel), Name(top["shown"]), nodes, speed, against_one(speed)))
    return sentences
