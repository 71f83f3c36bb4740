"""Steps as one animated SVG that needs no script: draft, verify, accept, bonus, step after step, over and over."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from specdraft.errors import ConfigError, plain_text
from specdraft.trees.step_picture import DARK, EDGE, LIGHT, PHASES, SCOPE, Phase, drawn, style
from specdraft.viewer.phases import captions, tokens_per_pass
from specdraft.viewer.steps import Shown

BEATS: dict[Phase, float] = {"draft": 1.6, "verify": 1.6, "accept": 1.6, "bonus": 2.2}  # seconds
WIDTH = 640  # of a README that is read at once, pixels
LINE, LETTER = 19, 7.83  # of the monospace text, pixels
COLUMNS = int((WIDTH - 2 * EDGE - 64) / LETTER)


class Frame(NamedTuple):
    """A still of the animation: SVG elements, and for how many seconds they are shown."""

    elements: str
    seconds: float


def animation(shown: Shown) -> str:
    """The animation, in light and dark; where reduced motion is wished its last frame stands still.

    Raises:
        ConfigError: there is no step.
    """
    if not shown.steps:
        raise ConfigError("there is no step to animate: the text ended with the token after the prompt")
    graphs = [step.graph(shown.word) for step in shown.steps]
    said = [text for step in shown.steps for text in captions(step, shown.word).values()]
    caption = LINE * max(len(_wrapped(text)) for text in said)
    top = 2 * EDGE + LINE * (1 + len(_lines(shown, len(shown.steps), "bonus"))) + caption
    pictures = [drawn(graph) for graph in graphs]
    height = top + max(picture.height for picture in pictures)
    width = max(WIDTH, *(picture.width for picture in pictures))
    frames = list(_frames(shown, top, top - caption))
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    about = f"{len(shown.steps)} verification steps of speculative decoding, phase by phase"
    groups = "".join(f'<g class="frame f{number}">{frame.elements}</g>' for number, frame in enumerate(frames))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="{SCOPE}" role="img"><title>{about}</title>'
        f"<style>{_styles(frames)}</style>"
        f'<rect class="paper" width="{width}" height="{height}" rx="8"/>{groups}</svg>\n'
    )


def _frames(shown: Shown, top: int, caption: int) -> Iterator[Frame]:
    counts = tokens_per_pass(shown.steps)
    for number, step in enumerate(shown.steps):
        graph, said = step.graph(shown.word), captions(step, shown.word)
        for phase in PHASES:
            text, y = [], EDGE + LINE
            for line in _lines(shown, number, phase):
                text.append(f'<text x="{EDGE}" y="{y}">{line}</text>')
                y += LINE
            so_far = counts[number] if phase == "bonus" else counts[number - 1] if number else None
            counter = "" if so_far is None else f"{so_far:.2f} tokens per pass"
            text.append(f'<text class="bonus" x="{WIDTH - EDGE}" y="{EDGE + LINE}" text-anchor="end">{counter}</text>')
            y = caption
            text.append(f'<text class="phase" x="{EDGE}" y="{y}">{phase}</text>')
            for line in _wrapped(said[phase]):
                text.append(f'<text x="{EDGE + 64}" y="{y}">{escape(line)}</text>')
                y += LINE
            tree = f'<g transform="translate(0,{top - EDGE})">{drawn(graph, phase).elements}</g>'
            yield Frame("".join(text) + tree, BEATS[phase])


def _lines(shown: Shown, number: int, phase: Phase) -> list[str]:
    """Prompt and text up to a phase of a step, as SVG text."""
    prompt = "".join(plain_text(piece.text) for piece in shown.before_reply)
    parts = [(prompt, "numbers"), (plain_text(shown.word(shown.first)), "")]
    for index, step in enumerate(shown.steps[: number + 1]):
        here = index == number
        if not here or PHASES.index(phase) >= 2:
            parts += [(plain_text(shown.word(step.nodes[node].token or 0)), "accepted") for node in step.accepted]
        if step.bonus is not None and (not here or phase == "bonus"):
            parts.append((plain_text(shown.word(step.bonus)), "bonus"))
    lines = [""]
    for text, kind in parts:
        first, *more = text.split("\n")
        lines[-1] += _span(first, kind)
        lines += [_span(line, kind) for line in more]
    return lines


def _span(text: str, kind: str) -> str:
    return f'<tspan class="{kind}">{escape(text)}</tspan>' if text else ""


def _wrapped(text: str) -> list[str]:
    """Lines of at most `COLUMNS` letters, broken between words."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > COLUMNS:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _styles(frames: list[Frame]) -> str:
    """Each frame is shown in its share of the whole, one after another."""
    whole, passed, rules = sum(frame.seconds for frame in frames), 0.0, []
    for number, frame in enumerate(frames):
        start, end = 100 * passed / whole, 100 * (passed + frame.seconds) / whole
        before = "0%{visibility:hidden}" if number else ""
        after = f"{end:.3f}%{{visibility:hidden}}" if number < len(frames) - 1 else ""
        rules.append(f"@keyframes k{number}{{{before}{start:.3f}%{{visibility:visible}}{after}}}")
        rules.append(f".f{number}{{animation-name:k{number}}}")
        passed += frame.seconds
    own = ".frame{visibility:hidden;animation:%.1fs step-end infinite}" % whole  # noqa: UP031
    more = f".{SCOPE} text.phase{{font-weight:700}}"
    still = f".frame{{animation:none!important}}.f{len(frames) - 1}{{visibility:visible}}"
    return (
        f"{style(LIGHT)}{_spans(LIGHT)}{more}@media(prefers-color-scheme:dark){{{style(DARK)}{_spans(DARK)}}}"
        f"{own}{''.join(rules)}@media(prefers-reduced-motion:reduce){{{still}}}"
    )


def _spans(colours: dict[str, str]) -> str:
    kinds = (("numbers", "soft"), ("accepted", "accepted"), ("bonus", "bonus"))
    return "".join(f".{SCOPE} tspan.{kind}{{fill:{colours[colour]};font-weight:700}}" for kind, colour in kinds)
