"""What every figure needs: which shapes and panels are drawn, the shared tables, and captions for what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pandas as pd

from specdraft.report.findings import Findings
from specdraft.report.study_files import visible
from specdraft.report.theme import CONFIG, ShapeScales
from specdraft.report.words import Text, join, names, say
from specdraft.trees.shapes import is_reference

MOST_SHAPES = 12  # lines in one panel
MOST_PANELS = 9
MOST_DETAIL_PANELS = 3
MOST_DETAIL_SHAPES = 4
MOST_SPOKEN = 3  # panels that a caption speaks of one by one
CHAIN = "chain"
TEXT = {"panel", "pair", "setting", "shown"}
METRIC_TITLES = {
    "block_efficiency": "block efficiency (tokens per step)",
    "acceptance_length": "acceptance length (tokens per step)",
    "acceptance_rate": "acceptance rate (share of drafted)",
    "est_speedup": "ESTIMATED speed-up (times plain)",
    "speedup": "measured speed-up (times plain)",
}


@dataclass(frozen=True)
class Figure:
    """A figure: a Vega-Lite specification that names its data, or the words that stand in its place.

    Attributes:
        name: file name and anchor.
        spec: None where the study has nothing to draw.
    """

    name: str
    title: str
    caption: Text
    spec: dict[str, Any] | None = None


@dataclass
class Drawn:
    """Every figure of a study, and the tables that they share."""

    figures: list[Figure] = field(default_factory=list)
    datasets: dict[str, pd.DataFrame] = field(default_factory=dict)


class Canvas:
    """Selects what is drawn, and holds it."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.rows = findings.rows.drop_duplicates(["panel", "tree", "budget"])
        self.drawn = Drawn()
        trees = list(dict.fromkeys(self.rows["tree"]))
        fair = [tree for tree in trees if not is_reference(tree)]
        self.all_shapes = len(fair)
        best = self.rows.groupby("tree")["block_efficiency"].max()
        kept = sorted(fair, key=lambda tree: (tree != CHAIN, -best[tree]))[:MOST_SHAPES]
        self.trees = [tree for tree in fair if tree in kept] + [tree for tree in trees if is_reference(tree)]
        self.panels = spread(
            findings.study.panels, dict(zip(self.rows["panel"], self.rows["pair"], strict=True)), MOST_PANELS
        )
        shown = {tree: visible(tree) for tree in trees}
        self.scales = ShapeScales([shown[t] for t in kept], [shown[t] for t in trees if is_reference(t)])
        kept_rows = self.rows[self.rows["tree"].isin(self.trees) & self.rows["panel"].isin(self.panels)]
        counts = kept_rows.groupby(["panel", "tree"])["budget"].transform("count")
        self.curves = kept_rows.assign(lonely=counts == 1)

    def _left_out(self, shapes: bool = True) -> Text:
        told = []
        drawn = sum(not is_reference(tree) for tree in self.trees)
        if shapes and drawn < self.all_shapes:
            chain = ", chain among them" if CHAIN in self.trees else ""
            told.append(
                say(
                    "Of {} shapes the {} with the highest block efficiency are drawn{}; the tables have all.",
                    self.all_shapes,
                    drawn,
                    chain,
                )
            )
        if len(self.panels) < len(self.findings.study.panels):
            told.append(
                say(
                    "{} of {} settings are drawn; the tables have all.",
                    len(self.panels),
                    len(self.findings.study.panels),
                )
            )
        return join(told)

    def _left_out_details(self) -> Text:
        panels = len(self.findings.study.panels)
        if panels > MOST_DETAIL_PANELS:
            return say("{} of {} settings are drawn.", MOST_DETAIL_PANELS, panels)
        return ()

    def _absent(self, file: str) -> Text:
        why = (
            "it is missing or damaged"
            if file not in self.findings.study.details
            else "it has no rows of the leading shapes"
        )
        return say("Not drawn from {}: {}.", file, why)

    def _reference_note(self) -> Text:
        shown = [visible(tree) for tree in self.trees if is_reference(tree)]
        return (
            say(
                "{} (grey) is fitted on the very prompts that it is scored on: a reference, never a winner.",
                names(shown),
            )
            if shown
            else ()
        )

    def _shapes_of(self, rows: pd.DataFrame) -> list[str]:
        there = set(rows["shown"])
        return [shown for shown in map(visible, self.trees) if shown in there]

    def _panels_of(self, rows: pd.DataFrame) -> list[str]:
        there = set(rows["panel"])
        return [panel for panel in self.panels if panel in there]

    def _share(self, name: str, rows: pd.DataFrame, columns: list[str]) -> alt.NamedData:
        """A table that several figures draw from, which grows with the columns they need."""
        before = self.drawn.datasets.get(name)
        whole = (
            self.curves[columns]
            if before is None
            else pd.concat([before, self.curves[[c for c in columns if c not in before]]], axis=1)
        )
        self.drawn.datasets[name] = whole
        return alt.NamedData(name=name)

    def _own(self, name: str, rows: pd.DataFrame) -> alt.NamedData:
        self.drawn.datasets[name] = rows.reset_index(drop=True)
        return alt.NamedData(name=name)

    def _add(self, name: str, title: str, caption: Text, chart: Any) -> None:
        spec = chart.configure(**CONFIG).to_dict()
        self.drawn.figures.append(Figure(name, title, caption, spec))

    def _words(self, name: str, title: str, caption: Text) -> None:
        self.drawn.figures.append(Figure(name, title, caption))


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


def tips(columns: Iterable[str]) -> list[alt.Tooltip]:
    """Tooltips of columns."""
    return [
        alt.Tooltip(f"{column}:{'N' if column in TEXT else 'Q'}", title=column.replace("_", " ")) for column in columns
    ]


def width(panels: int) -> int:
    """Of one panel, in pixels."""
    return {1: 620, 2: 400}.get(panels, 270)


def facet(chart: Any, data: alt.NamedData, panels: list[str], height: int) -> Any:
    """One panel per setting, three in a row."""
    sized = chart.properties(width=width(len(panels)), height=height)
    sized.data = data
    return sized.facet(facet=alt.Facet("panel:N", title=None, sort=panels), columns=3)
