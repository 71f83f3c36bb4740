"""The questions behind the results, in the order of the paper. To add one: a function that returns an `Analysis`, a
line here, and its chapter in each catalogue of texts."""

from __future__ import annotations

from collections.abc import Callable

from specdraft.report.course.asked import Analysis, Asked
from specdraft.report.course.catalogue import Catalogue
from specdraft.report.course.measures import Measures
from specdraft.report.course.of_settings import best_budget, by_category, sampling, widths
from specdraft.report.course.of_trees import below_siblings, depth_or_width, marginal_gain, rank_decay

ANALYSES: tuple[Callable[[Asked], Analysis | None], ...] = (
    rank_decay,
    depth_or_width,
    marginal_gain,
    best_budget,
    widths,
    sampling,
    by_category,
    below_siblings,
)


def analyses(measures: Measures, texts: Catalogue) -> list[Analysis]:
    """Every analysis that the study has the settings for."""
    asked = Asked(measures, texts)
    return [found for analyse in ANALYSES if (found := analyse(asked)) is not None]
