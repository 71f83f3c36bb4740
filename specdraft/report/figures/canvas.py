"""What figures draw from: a study's rows, and which of its shapes and panels fit into a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from specdraft.report.findings import Findings
from specdraft.report.marks import ShapeScales
from specdraft.report.study_files import settings_without, visible
from specdraft.trees.shapes import is_reference

MOST_SHAPES = 12  # lines in one panel
MOST_PANELS = 9
MOST_DETAIL_PANELS = 3
MOST_DETAIL_SHAPES = 4
MOST_SPOKEN = 3  # panels that a caption speaks of one by one
CHAIN = "chain"


@dataclass(frozen=True)
class Canvas:
    """A study, cut to what can be drawn.

    Attributes:
        rows: a row per panel, shape and budget, also of what is not drawn.
        trees: the shapes that are drawn, references last.
        panels: the settings that are drawn.
        all_shapes: how many shapes were measured, references aside.
        curves: the rows of the drawn shapes and panels; `lonely` ones are the only budget of their shape in a panel.
    """

    findings: Findings
    rows: pd.DataFrame
    trees: list[str]
    panels: list[str]
    all_shapes: int
    scales: ShapeScales
    curves: pd.DataFrame

    @property
    def single_budget(self) -> bool:
        """Nothing can be drawn over the budget."""
        return int(self.rows["budget"].nunique()) == 1

    @property
    def shapes_not_drawn(self) -> list[str]:
        """The names of the shapes that are left out."""
        return [visible(tree) for tree in dict.fromkeys(self.rows["tree"]) if tree not in self.trees]

    def shapes_of(self, rows: pd.DataFrame) -> list[str]:
        """The names that rows have in `shown`, in the order of the legend."""
        there = set(rows["shown"])
        return [shown for shown in map(visible, self.trees) if shown in there]

    def panels_of(self, rows: pd.DataFrame) -> list[str]:
        """The drawn panels that rows are of, in the study's order."""
        there = set(rows["panel"])
        return [panel for panel in self.panels if panel in there]

    def at(self, panel: str, budget: int) -> pd.DataFrame:
        """All rows of a panel that compete at a budget."""
        return self.rows[(self.rows["panel"] == panel) & (self.rows["competes"] == budget)]

    @property
    def leading(self) -> list[str]:
        """The names of the shapes that lead anywhere in the drawn panels."""
        return list(dict.fromkeys(visible(lead.tree) for lead in self.findings.leads if lead.panel in self.panels))

    def settings(self, rows: pd.DataFrame, but: str) -> list[str]:
        """A panel for each row that holds what differs by tree, budget and one more key only."""
        return settings_without(self.findings.study.varying, rows, but)

    def pair_of(self) -> dict[str, str]:
        """Panel -> pair."""
        return dict(zip(self.rows["panel"], self.rows["pair"], strict=True))


def canvas_of(findings: Findings) -> Canvas:
    """Choose what is drawn: the best shapes with the chain among them, every reference, panels of every pair."""
    rows = findings.rows.drop_duplicates(["panel", "tree", "budget"])
    all_trees = list(dict.fromkeys(rows["tree"]))
    competing = [tree for tree in all_trees if not is_reference(tree)]
    references = [tree for tree in all_trees if is_reference(tree)]
    best = rows.groupby("tree")["block_efficiency"].max()
    kept = sorted(competing, key=lambda tree: (tree != CHAIN, -best[tree]))[:MOST_SHAPES]
    trees = [tree for tree in competing if tree in kept] + references
    panels = spread(findings.study.panels, dict(zip(rows["panel"], rows["pair"], strict=True)), MOST_PANELS)
    marked = dict.fromkeys([*kept, *(lead.tree for lead in findings.leads)])
    scales = ShapeScales(*(list(map(visible, trees)) for trees in (marked, references, competing)))
    curves = rows[rows["tree"].isin(trees) & rows["panel"].isin(panels)]
    budgets = curves.groupby(["panel", "tree"])["budget"].transform("count")
    return Canvas(findings, rows, trees, panels, len(competing), scales, curves.assign(lonely=budgets == 1))


def spread(panels: Sequence[str], pair_of: dict[str, str], most: int) -> list[str]:
    """At most so many panels, from every pair as far as it goes, in the study's order."""
    if len(panels) <= most:
        return list(panels)
    seen: dict[str, int] = {}
    turn = {}
    for panel in panels:
        pair = pair_of.get(panel, "")
        turn[panel] = seen[pair] = seen.get(pair, -1) + 1
    kept = sorted(panels, key=lambda panel: turn[panel])[:most]
    return [panel for panel in panels if panel in kept]
