"""The main table of the course report, those of its appendix, and who leads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import nan
from typing import NamedTuple

from specdraft.report.course.blocks import Grid
from specdraft.report.course.catalogue import Catalogue
from specdraft.report.course.measures import Measures, Setting
from specdraft.report.words import Name, Strong, Text
from specdraft.results.intervals import Interval
from specdraft.trees.shapes import is_reference

SOURCE = "records.csv"
FEWEST_BUDGETS = 4  # of a shape in the main table; what was measured at fewer answers one question only
MOST_BUDGETS = 6


class Leader(NamedTuple):
    """The best shape of a pair at a budget.

    Attributes:
        value: its block efficiency.
        lead: over the best of the others, paired.
    """

    pair: str
    budget: int
    tree: str
    value: Interval
    runner: str
    lead: Interval


def main_shapes(
    measures: Measures, pair: str, temperature: float, acceptance: str | None = None
) -> dict[str, list[Setting]]:
    """Shape -> its settings by budget, of the shapes that were measured over the whole range."""
    shapes: dict[str, list[Setting]] = {}
    for setting in measures.settings(pair, temperature):
        if acceptance in (None, setting.acceptance):
            shapes.setdefault(setting.tree, []).append(setting)
    most = max((len(settings) for settings in shapes.values()), default=0)
    fewest = min(FEWEST_BUDGETS, most)
    return {tree: sorted(found, key=lambda one: one.budget) for tree, found in shapes.items() if len(found) >= fewest}


def efficiency_table(measures: Measures, pair: str, texts: Catalogue, metric: str = "block_efficiency") -> Grid:
    """A metric by shape and budget, greedy; the best competing shape of each budget in bold."""
    shapes = main_shapes(measures, pair, 0.0)
    budgets = _budgets(shapes)
    found = {
        tree: {one.budget: measures.ratio(one, metric) for one in settings if one.budget in budgets}
        for tree, settings in shapes.items()
    }
    best = {
        budget: _most(of[budget].value for tree, of in found.items() if budget in of and not is_reference(tree))
        for budget in budgets
    }
    rows = [
        ((Name(tree),), *(_best(of.get(budget), best[budget], tree) for budget in budgets))
        for tree, of in found.items()
    ]
    columns = [texts.of("tree"), *(texts.label("budget_of", nodes=budget) for budget in budgets)]
    title = texts.label("tables.efficiency", pair=pair, metric=texts.of(f"metrics.{metric}"))
    return Grid(title, columns, rows, SOURCE, texts.say("tables.note"))


def _budgets(shapes: dict[str, list[Setting]]) -> list[int]:
    """The budgets that most shapes have."""
    counts: dict[int, int] = {}
    for settings in shapes.values():
        for one in settings:
            counts[one.budget] = counts.get(one.budget, 0) + 1
    most = max(counts.values())
    return sorted(budget for budget, count in counts.items() if count == most)[-MOST_BUDGETS:]


def _most(values: Iterable[float]) -> float:
    """The best value; none where all are equal."""
    different = set(values)
    return max(different) if len(different) > 1 else nan


def _best(one: Interval | None, most: float, tree: str) -> Text:
    if one is None:
        return ("–",)
    return (Strong(str(one)) if one.value == most and not is_reference(tree) else str(one),)


def rules_table(measures: Measures, pair: str, texts: Catalogue) -> Grid | None:
    """Block efficiency under every rule at temperature 1, a row for each rule and shape."""
    settings = measures.settings(pair, 1.0)
    rules = list(dict.fromkeys(setting.acceptance for setting in settings))
    if not rules:
        return None
    budgets = sorted({setting.budget for setting in settings})
    rows = [
        (
            (Name(rule),),
            (Name(tree),),
            *(_plain(measures, Setting(pair, tree, budget, rule, 1.0)) for budget in budgets),
        )
        for rule in rules
        for tree in dict.fromkeys(setting.tree for setting in settings if setting.acceptance == rule)
    ]
    columns = [texts.of("rule"), texts.of("tree"), *(texts.label("budget_of", nodes=budget) for budget in budgets)]
    return Grid(texts.label("tables.rules", pair=pair), columns, rows, SOURCE, texts.say("tables.rules_note"))


def _plain(measures: Measures, setting: Setting) -> Text:
    return (str(measures.ratio(setting)) if measures.has(setting) else "–",)


def leaders(measures: Measures) -> Iterator[Leader]:
    """The best shape of every pair at every budget above 1, greedy: where all trees of one node are the same."""
    for pair in measures.pairs:
        shapes = {tree: found for tree, found in main_shapes(measures, pair, 0.0).items() if not is_reference(tree)}
        for budget in _budgets(shapes) if shapes else ():
            there = {
                tree: measures.ratio(one) for tree, found in shapes.items() for one in found if one.budget == budget
            }
            if budget == 1 or len(there) < 2:
                continue
            first, second = sorted(there, key=lambda tree: -there[tree].value)[:2]
            lead = measures.difference(Setting(pair, first, budget), Setting(pair, second, budget))
            yield Leader(pair, budget, first, there[first], second, lead)
