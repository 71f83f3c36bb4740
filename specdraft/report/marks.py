"""The colour and symbol of each draft-tree shape: the same in every figure of every report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain, product
from typing import Any, NamedTuple

import altair as alt

from specdraft.report.theme import COLOURS, DASHES, GREY

BLUE, RED, VIOLET, ORANGE, GREEN, MAGENTA, LAVENDER, PLUM, ROSE, FOREST = COLOURS
STAR = "M0,-1L0.25,-0.34L0.95,-0.31L0.4,0.13L0.59,0.81L0,0.42L-0.59,0.81L-0.4,0.13L-0.95,-0.31L-0.25,-0.34Z"
HEXAGON = "M0.5,-0.87L1,0L0.5,0.87L-0.5,0.87L-1,0L-0.5,-0.87Z"
BOW = "M-0.9,-0.8L0,-0.2L0.9,-0.8L0.9,0.8L0,0.2L-0.9,0.8Z"
SALTIRE = (
    "M-0.85,-0.5L-0.5,-0.85L0,-0.35L0.5,-0.85L0.85,-0.5L0.35,0L0.85,0.5L0.5,0.85L0,0.35L-0.5,0.85L-0.85,0.5L-0.35,0Z"
)
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-right", "cross", "triangle-down", "triangle-left",
           STAR, HEXAGON, BOW, SALTIRE)  # fmt: skip


class Mark(NamedTuple):
    """How a shape is drawn; `symbol` is Vega's name of one, or an SVG path between -1 and 1."""

    colour: str
    symbol: str


FAMILIES = {  # what a name begins with -> the mark of its plain form
    "chain": Mark(BLUE, "circle"),
    "best_first": Mark(RED, "square"),
    "sequoia": Mark(VIOLET, "triangle-up"),
    "measured": Mark(ORANGE, "diamond"),
    "kary": Mark(GREEN, "triangle-right"),
    "branching": Mark(MAGENTA, "cross"),
    "beam": Mark(LAVENDER, "triangle-down"),
    "eagle": Mark(PLUM, "triangle-left"),
    "medusa": Mark(ROSE, STAR),
    "wide": Mark(FOREST, HEXAGON),
    "adaptive": Mark(GREEN, BOW),
    "expand_rerank": Mark(PLUM, SALTIRE),
    "beam_search": Mark(ORANGE, SALTIRE),
    "hindsight": Mark(GREY, "circle"),
}
EVERY = tuple(product(COLOURS, SYMBOLS))


def marks(shapes: Iterable[str], others: Iterable[str] = ()) -> dict[str, Mark]:
    """The mark of each shape: no two are alike, as far as there are marks; `others` get what these leave.

    A mark follows from the name alone: its family's colour, and a symbol from what follows the family's name. Only
    where two names of a study come to the same mark, the later one in the alphabet takes the next that is free.
    """
    taken: dict[str, Mark] = {}
    ordered = [sorted(set(names), key=lambda name: (name not in FAMILIES, name)) for names in (shapes, others)]
    for shape in dict.fromkeys(chain.from_iterable(ordered)):
        preferred = mark_of(shape)
        taken[shape] = next((mark for mark in _from(preferred) if mark not in taken.values()), preferred)
    return taken


def mark_of(shape: str) -> Mark:
    """The mark that a name asks for."""
    family = re.split("[-/]", shape, maxsplit=1)[0]
    if family not in FAMILIES:
        return Mark(*EVERY[sum(shape.encode()) % len(EVERY)])
    return _turned(FAMILIES[family], sum(shape.removeprefix(family).encode()))


def _turned(mark: Mark, steps: int) -> Mark:
    """The same colour with another symbol."""
    return Mark(mark.colour, SYMBOLS[(SYMBOLS.index(mark.symbol) + steps) % len(SYMBOLS)])


def _from(mark: Mark) -> Iterable[Mark]:
    """This mark, the others of its colour, then those of other colours; a reference stays grey."""
    colours = [GREY] if mark.colour == GREY else COLOURS[COLOURS.index(mark.colour) :] + COLOURS
    return (_turned(Mark(colour, mark.symbol), step) for colour in colours for step in range(len(SYMBOLS)))


class ShapeScales:
    """Colours, symbols and dashes of a study's shapes as scales of Vega-Lite.

    Args:
        shapes: their names.
        references: of those that cannot win: grey and dashed.
        others: of those that few figures draw.
    """

    def __init__(self, shapes: list[str], references: list[str], others: Iterable[str] = ()) -> None:
        self._of = {
            shape: (*mark, DASHES[2] if shape in references else DASHES[0])
            for shape, mark in marks([*shapes, *references], others).items()
        }

    def values(self, shapes: list[str], part: int = 0) -> list[Any]:
        """Colours (part 0), symbols (1) or dashes (2) of these shapes."""
        return [self._of[shape][part] for shape in shapes]

    def scale(self, shapes: list[str], part: int = 0) -> alt.Scale:
        """The same as a scale."""
        return alt.Scale(domain=shapes, range=self.values(shapes, part))

    def colour(self, shapes: list[str]) -> alt.Color:
        """The colour channel."""
        return alt.Color("shown:N", scale=self.scale(shapes), legend=_legend(shapes))

    def marker(self, shapes: list[str]) -> alt.Shape:
        """The symbol channel."""
        return alt.Shape("shown:N", scale=self.scale(shapes, 1), legend=_legend(shapes))

    def dash(self, shapes: list[str]) -> alt.StrokeDash:
        """The dash channel."""
        return alt.StrokeDash("shown:N", scale=self.scale(shapes, 2), legend=_legend(shapes))


def _legend(shapes: list[str]) -> alt.Legend | None:
    """The same for every channel, so that they become one legend; none for a single shape."""
    return alt.Legend(title="shape", columns=6, symbolOpacity=1) if len(shapes) > 1 else None
