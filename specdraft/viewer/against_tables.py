"""What `specdraft certify --against` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from specdraft.errors import plain_text
from specdraft.losslessness.against import BUG, ENGINE, EQUAL, TIE, Judged
from specdraft.models.facts import naming

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specdraft.study.against import Against, Texts

MOST_LINES = 40  # texts that are listed; the worst first
MOST_UNJUDGED = 10
ORDER = (BUG, ENGINE, TIE)
NUMBERS = ("at token", "of", "gap", "ties")
MEANINGS = {
    BUG: "a token that is not the target's, beyond a tie",
    ENGINE: "the engine has that token without speculation too: its arithmetic or weights, not speculation",
    TIE: "within rounding of the target's own token",
}
SMALL_GAP = 1.0  # logits, that 16-bit arithmetic may come to
STYLES = {BUG: "bold red", ENGINE: "yellow", TIE: "cyan"}


def against_lines(told: Against) -> Iterator[RenderableType]:
    """The texts that are not the target's own to the last token, those that were not judged, and the verdict."""
    texts = told.texts
    differing = sorted((t for t in texts.judged if t.verdict != EQUAL), key=lambda text: ORDER.index(text.verdict))
    if differing:
        yield _table(told, differing[:MOST_LINES])
        if len(differing) > MOST_LINES:
            yield Text(f"and {len(differing) - MOST_LINES} more; --json lists all")
    for part in (texts, *([told.control] if told.control else [])):
        for line in _unjudged_lines(part):
            yield Text(line, style="yellow")
    for line in notes(told):
        yield Text(line)
    good = "bold yellow" if texts.count(ENGINE) else "bold green"
    yield Text(sentence(told), style=good if told.certified else "bold red")


def _table(told: Against, differing: list[Judged]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("prompt", "verdict", "at token", "of", "it has", "target has", "gap", "ties"):
        table.add_column(name, justify="right" if name in NUMBERS else "left", overflow="fold")
    if told.control is not None:
        table.add_column("control", no_wrap=True)
    for text in differing:
        first = text.first
        assert first is not None
        words = [plain_text(repr(told.word(token))) for token in (first.token, first.own)]
        cells: list[str | Text] = [plain_text(text.name), Text(text.verdict, style=STYLES[text.verdict])]
        cells += [str(first.position), str(len(text.read.given.token_ids)), *words]
        cells += [f"{first.gap:.3g}", str(text.counts[TIE])]
        table.add_row(*cells, *([text.control or "-"] if told.control is not None else []))
    return table


def _unjudged_lines(texts: Texts) -> Iterator[str]:
    for text in texts.unjudged[:MOST_UNJUDGED]:
        yield plain_text(f"not judged: {texts.file.name}: prompt {text.name}: {text.reason}")
    if len(texts.unjudged) > MOST_UNJUDGED:
        yield f"not judged: {texts.file.name}: {len(texts.unjudged) - MOST_UNJUDGED} more; --json lists all"


def notes(told: Against) -> Iterator[str]:
    """What to know beside the verdict, a line each."""
    texts = told.texts.judged
    said = "default" if told.tolerance == told.usual else f"default {told.usual:.2g}"
    yield f"a tie: a gap of at most {told.tolerance:.2g} logits ({said}; --tolerance bfloat16 for engines in that type)"
    if nameless := told.texts.nameless:
        yield f"{_texts(nameless)} name no prompt: taken by the number of their line"
    if reencoded := sum(text.read.given.text is not None for text in texts):
        how = "written in the target's tokens, its own where the letters allow"
        yield f"{_texts(reencoded)} came without token ids: {how}"
    if open_ended := sum(text.read.goes_on for text in texts):
        yield f"of {_texts(open_ended)} the target would go on: a limit or a stop string, or a lost end"
    if longer := sum(bool(text.read.given.after_end) for text in texts):
        yield f"of {_texts(longer)} what follows an end of sequence is not judged"
    if told.control is not None:
        control = told.control
        without = sum(control.count(verdict) for verdict in (EQUAL, TIE))
        whole = f"{without} of {_texts(len(control.judged))}"
        yield f"without speculation ({control.file.name}): the target's own are {whole}"
        yield "control: the token that it has there, -: no text of it comes to this place"
    yield from (f"{verdict}: {MEANINGS[verdict]}" for verdict in ORDER if told.texts.count(verdict))
    gaps = [text.first.gap for text in texts if text.verdict == BUG and text.first]
    if gaps and max(gaps) <= SMALL_GAP and told.tolerance == told.usual:
        would = "--tolerance bfloat16 (or float16) would tell, or its texts without speculation as a second --against"
        yield f"gaps of up to {max(gaps):.2g} may be what an engine in 16 bits rounds by: {would}"


def sentence(told: Against) -> str:
    """The verdict in one sentence."""
    texts = told.texts
    target = naming(told.pair.target)["path"]
    name, judged = texts.file.name, texts.judged
    if not judged:
        return f"NOT TESTED: no text of {name} could be judged"
    counts = {verdict: texts.count(verdict) for verdict in (EQUAL, *ORDER)}
    tokens = sum(len(text.read.given.token_ids) for text in judged)
    left = f"; {_texts(len(texts.unjudged))} not judged" if texts.unjudged else ""
    parts = f"{counts[EQUAL]} equal, {counts[TIE]} with ties{_largest(judged, TIE)}"
    if told.control is not None:
        parts += f", {counts[ENGINE]} that differ as without speculation{_largest(judged, ENGINE)}"
    if counts[BUG]:
        worst = next(text for text in judged if text.verdict == BUG)
        assert worst.first is not None
        return plain_text(
            f"NOT THE TARGET'S: {counts[BUG]} of {_texts(len(judged))} of {name} ({parts}){left}; first: prompt "
            f"{worst.name}, token {worst.first.position}, {worst.first.gap:.3g} logits below {target}'s own"
        )
    own = "could be" if not told.sampling.greedy else "are"
    if counts[ENGINE]:
        return f"SPECULATION CHANGES NOTHING: {_texts(len(judged))} of {name}, {tokens:,} tokens: {parts}{left}"
    return f"THE TARGET'S OWN: {_texts(len(judged))} of {name}, {tokens:,} tokens, {own} {target}'s: {parts}{left}"


def _largest(judged: list[Judged], verdict: str) -> str:
    """How far the tokens of these texts are from the target's."""
    gaps = [text.first.gap for text in judged if text.verdict == verdict and text.first]
    return f" (largest gap {max(gaps):.2g})" if gaps else ""


def _texts(count: int) -> str:
    return f"{count:,} text{'' if count == 1 else 's'}"
