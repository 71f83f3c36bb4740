"""One verification step as SVG, as far as it has come: drafted, verified, accepted, with its bonus token."""

from __future__ import annotations

from base64 import b64encode
from typing import Literal, NamedTuple
from xml.sax.saxutils import escape

from specdraft.trees.layout import layout
from specdraft.trees.step_graph import BONUS, END, FIRST_DRAFT, FIRST_TARGET, MARKS, GraphNode, StepGraph, prob_text

Phase = Literal["draft", "verify", "accept", "bonus"]
PHASES: tuple[Phase, ...] = ("draft", "verify", "accept", "bonus")
COLUMN, ROW, WIDE, HIGH, PILL, EDGE = 194, 62, 166, 38, 18, 10
SCOPE = "specdraft"  # the class of the outermost element
LETTERS = 17  # of a token: what a box has room for
MONO = "'DejaVu Sans Mono','Liberation Mono',Menlo,Consolas,monospace"
LIGHT = {
    "paper": "#ffffff", "ink": "#1a1a1a", "soft": "#5c5c5c", "unused": "#6b6b6b", "star": "#e0a000",
    "accepted": "#0b5fa5", "accepted-fill": "#dcebf8", "rejected": "#b34700", "rejected-fill": "#fdeee2",
    "bonus": "#7a2f6f", "bonus-fill": "#f6e3f1",
}  # fmt: skip
DARK = {
    "paper": "#16181b", "ink": "#ececec", "soft": "#a9adb3", "unused": "#9a9fa6", "star": "#c99700",
    "accepted": "#7cc0f5", "accepted-fill": "#16344e", "rejected": "#f2a36b", "rejected-fill": "#452a17",
    "bonus": "#e2a1d4", "bonus-fill": "#43203c",
}  # fmt: skip


class Picture(NamedTuple):
    """SVG elements without a stylesheet, and the room they take."""

    elements: str
    width: int
    height: int


def style(colours: dict[str, str]) -> str:
    """The stylesheet of the classes that pictures use; inside a page it reaches nothing else."""
    c = colours
    rules = {
        ".paper": f"fill:{c['paper']}",
        "text": f"fill:{c['ink']};font-family:{MONO};font-size:13px;white-space:pre",
        "text.numbers": f"fill:{c['soft']};font-size:10px",
        "rect.node": f"fill:{c['paper']};stroke:{c['unused']};stroke-width:1.3",
        "rect.root": f"fill:{c['paper']};stroke:{c['ink']};stroke-width:2",
        "rect.unused": f"fill:{c['paper']};stroke:{c['unused']};stroke-width:1.2;stroke-dasharray:2 3",
        "rect.accepted": f"fill:{c['accepted-fill']};stroke:{c['accepted']};stroke-width:3",
        "rect.rejected": f"fill:{c['rejected-fill']};stroke:{c['rejected']};stroke-width:1.6;stroke-dasharray:6 3",
        "rect.bonus": f"fill:{c['bonus-fill']};stroke:{c['bonus']};stroke-width:1.6",
        "text.accepted": f"fill:{c['accepted']};font-weight:700",
        "text.rejected": f"fill:{c['rejected']}",
        "text.unused": f"fill:{c['unused']}",
        "text.bonus": f"fill:{c['bonus']};font-weight:700",
        "text.star": f"fill:{c['star']};font-size:15px",
        "path": f"fill:none;stroke:{c['unused']};stroke-width:1.2",
        "path.accepted": f"stroke:{c['accepted']};stroke-width:3.5",
        "path.rejected": f"stroke:{c['rejected']};stroke-dasharray:6 3",
        "path.unused": "stroke-dasharray:2 3",
    }
    return "".join(f".{SCOPE} {name}{{{rule}}}" for name, rule in rules.items())


def drawn(graph: StepGraph, phase: Phase = "bonus") -> Picture:
    """The tree from left to right. What a later phase finds out is not in it."""
    at = [(EDGE + x * COLUMN, EDGE + y * ROW) for x, y in layout(graph.topology)]
    states = [node.state if PHASES.index(phase) >= 2 or not index else "node" for index, node in enumerate(graph.nodes)]
    parts = []
    for child, parent in enumerate(graph.topology.parents.tolist()):
        if child:
            (x0, y0), (x1, y1) = at[parent], at[child]
            x0, y0, y1, middle = x0 + WIDE, y0 + HIGH / 2, y1 + HIGH / 2, (x0 + WIDE + x1) / 2
            curve = f"M{x0:g},{y0:g}C{middle:g},{y0:g} {middle:g},{y1:g} {x1:g},{y1:g}"
            parts.append(f'<path class="{states[child]}" d="{curve}"/>')
    best = set(graph.first_choices)
    for index, (node, state, (x, y)) in enumerate(zip(graph.nodes, states, at, strict=True)):
        parts.append(f'<rect class="{state}" x="{x:g}" y="{y:g}" width="{WIDE}" height="{HIGH}" rx="6"/>')
        parts.append(_labels(node, state, x, y, index in best, phase))
    if phase == "bonus":
        x, y = at[graph.last]
        parts.append(_pill(graph, x + 18, y + HIGH - 2))
    width = max(x for x, _ in at) + WIDE + EDGE
    height = max(y for _, y in at) + HIGH + PILL + EDGE
    return Picture("".join(parts), int(width), int(height))


def _labels(node: GraphNode, state: str, x: float, y: float, starred: bool, phase: Phase) -> str:
    known = phase != "draft"
    first = FIRST_TARGET if known and node.target_first else ""
    text = node.shown(LETTERS - 2 * starred - 2 * bool(first))
    mark = MARKS[node.state] if state == node.state else ""
    parts = [f'<text class="{state}" x="{x + 8:g}" y="{y + 16:g}">{escape(mark + text)}</text>']
    if first:
        parts.append(f'<text x="{x + WIDE - (36 if starred else 20):g}" y="{y + 16:g}">{first}</text>')
    if starred:
        parts.append(f'<text class="star" x="{x + WIDE - 20:g}" y="{y + 17:g}">{FIRST_DRAFT}</text>')
    numbers = f"draft {prob_text(node.draft_prob)}" + (f"  target {prob_text(node.target_prob)}" if known else "")
    numbers = "root" if state == "root" else numbers
    return "".join([*parts, f'<text class="numbers" x="{x + 8:g}" y="{y + 31:g}">{numbers}</text>'])


def _pill(graph: StepGraph, x: float, y: float) -> str:
    text = f"{BONUS} {graph.bonus.shown(LETTERS - 2)}" if graph.bonus else f"{END} the text ends"
    box = f'<rect class="bonus" x="{x:g}" y="{y:g}" width="{WIDE - 18}" height="{PILL}" rx="9"/>'
    return f'{box}<text class="bonus" x="{x + 10:g}" y="{y + 13:g}">{escape(text)}</text>'


LEGEND = (
    f"{MARKS['accepted']}accepted  {MARKS['rejected']}rejected  {BONUS} bonus  "
    f"{FIRST_DRAFT} drafter's first choice  {FIRST_TARGET} target's first choice"
)


def step_svg(graph: StepGraph) -> str:
    """The whole step with a legend, as a file."""
    picture = drawn(graph)
    width, height = max(picture.width, len(LEGEND) * 6 + 2 * EDGE), picture.height + 20
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    legend = f'<text class="numbers" x="{EDGE}" y="{height - EDGE}">{escape(LEGEND)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="{SCOPE}" role="img"><title>{_about(graph)}</title>'
        f'<style>{style(LIGHT)}</style><rect class="paper" width="{width}" height="{height}"/>'
        f"{picture.elements}{legend}</svg>\n"
    )


def step_image(graph: StepGraph) -> str:
    """The picture as HTML: an image that carries itself, which notebooks keep where they drop inline SVG."""
    encoded = b64encode(step_svg(graph).encode()).decode()
    return f'<img alt="{_about(graph)}" src="data:image/svg+xml;base64,{encoded}">'


def _about(graph: StepGraph) -> str:
    return f"A verification step: {len(graph.accepted)} of {graph.topology.num_nodes} draft nodes accepted"
