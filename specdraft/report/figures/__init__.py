"""The figures, each with a caption that says what is to be seen and is computed from what is drawn.

A figure is a function of a `Canvas` that returns a `Figure`, or None where the study has nothing to do with it. To add
one, write the function in a file of this folder and name it in `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable

from specdraft.report.figures.base import Drawn, Figure, together
from specdraft.report.figures.batches import batches
from specdraft.report.figures.canvas import Canvas, canvas_of
from specdraft.report.figures.categories import categories
from specdraft.report.figures.charts import METRIC_TITLES
from specdraft.report.figures.controls import controlled
from specdraft.report.figures.depth import depth
from specdraft.report.figures.draft_temperature import draft_temperature
from specdraft.report.figures.heat import heat
from specdraft.report.figures.latency import latency
from specdraft.report.figures.lengths import lengths
from specdraft.report.figures.metrics import acceptance_length, acceptance_rate
from specdraft.report.figures.offsets import offsets
from specdraft.report.figures.opening import block_efficiency
from specdraft.report.figures.policies import policies
from specdraft.report.figures.pruning import pruning
from specdraft.report.figures.ranks import ranks
from specdraft.report.figures.reliability import reliability, survival
from specdraft.report.figures.settings import settings
from specdraft.report.figures.siblings import siblings
from specdraft.report.figures.sized import sized
from specdraft.report.figures.speedups import estimated_speedup, measured_speedup
from specdraft.report.figures.theory import theory
from specdraft.report.figures.winners import winners
from specdraft.report.findings import Findings

FIGURES: tuple[Callable[[Canvas], Figure | None], ...] = (  # in the report's order
    block_efficiency,
    winners,
    acceptance_length,
    acceptance_rate,
    heat,
    depth,
    ranks,
    siblings,
    offsets,
    lengths,
    categories,
    reliability,
    survival,
    pruning,
    policies,
    settings,
    draft_temperature,
    theory,
    latency,
    measured_speedup,
    estimated_speedup,
    batches,
    sized,
)


def draw(findings: Findings) -> Drawn:
    """Every figure of a study."""
    if findings.rows.empty:
        return Drawn()
    canvas = canvas_of(findings)
    figures = (figure for draw_figure in FIGURES if (figure := draw_figure(canvas)) is not None)
    return together(controlled(figure, canvas, METRIC_TITLES) for figure in figures)
