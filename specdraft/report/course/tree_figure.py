"""The trees themselves, drawn from what a study counted at each of their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from specdraft.errors import UserError
from specdraft.report.course.blocks import Chart
from specdraft.report.course.catalogue import Catalogue
from specdraft.report.course.drawings import trees
from specdraft.report.words import Name
from specdraft.trees.layout import layout
from specdraft.viewer.heat import HeatTree, heat_trees

DRAWN = ("chain", "kary", "branching", "beam", "wide", "sequoia", "best_first")
BUDGET = 8
RULES = {"chain": ("greedy", "rejection")}
OTHER_RULES = ("greedy", "recursive")  # that drawn trees are judged by
NODES = "nodes.csv"


def tree_chart(folder: Path, pair: str, texts: Catalogue) -> Chart | None:
    """The trees of a pair at one budget: on greedy texts, and the same ones on sampled texts."""
    heats = sorted(_heats(folder, pair), key=lambda heat: heat.about["acceptance"] != "greedy")
    nodes, edges = [], []
    for heat in heats:
        about = heat.about
        sampled = about["temperature"] != "0"
        panel = f"{about['tree']}, T={about['temperature']}" if sampled else about["tree"]
        nodes += list(_nodes(heat, panel))
        edges += list(_edges(heat, panel))
    if not nodes:
        return None
    spec = trees(pd.DataFrame(nodes), pd.DataFrame(edges), texts.label("trees.colour"), str(texts.of("font")))
    caption = texts.say("trees.caption", nodes=BUDGET, pair=Name(pair))
    return Chart("trees", texts.label("trees.figure"), caption, spec, NODES)


def _heats(folder: Path, pair: str) -> Iterator[HeatTree]:
    for tree in DRAWN:
        try:
            found = heat_trees(folder, tree, BUDGET, pair)
        except UserError:  # not measured there
            continue
        wanted = RULES.get(tree, OTHER_RULES)
        yield from (heat for heat in found if heat.about["acceptance"] in wanted)


def _drawn(heat: HeatTree) -> Iterator[tuple[int, tuple[int, float], tuple[int, float]]]:
    """Each drawn node of a tree, its place and its parent's: the heaviest nodes, as many as the budget, as of
    fitted and dynamic trees others are there now and then."""
    least = [1.0]
    for node in range(1, len(heat.weights)):
        least.append(min(heat.weights[node], least[int(heat.topology.parents[node])]))
    kept = sorted(sorted(range(len(least)), key=lambda node: -least[node])[: BUDGET + 1])
    places = layout(heat.topology.part(kept))
    middle = max(across for _, across in places) / 2
    place_of = {node: (depth, across - middle) for node, (depth, across) in zip(kept, places, strict=True)}
    for node in kept:
        parent = int(heat.topology.parents[node]) if node else 0
        yield node, place_of[node], place_of[parent]


def _nodes(heat: HeatTree, panel: str) -> Iterator[dict[str, Any]]:
    for node, (depth, across), _ in _drawn(heat):
        yield {"panel": panel, "x": across, "y": depth, "weight": heat.weights[node]}


def _edges(heat: HeatTree, panel: str) -> Iterator[dict[str, Any]]:
    for node, (depth, across), (above, beside) in _drawn(heat):
        if node:
            yield {"panel": panel, "x": beside, "y": above, "x2": across, "y2": depth}
