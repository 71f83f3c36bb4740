"""Steps in a terminal, as they happen, or in a log."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from specdraft.errors import plain_text
from specdraft.models.prompt_reader import Piece
from specdraft.study.generate import Generation
from specdraft.viewer.phases import captions
from specdraft.viewer.steps import Showing, Shown, ShownStep, Word
from specdraft.viewer.trees import ACCEPTED, BEST, BONUS, DIM, REJECTED, step_tree

REPLY = "bold"
TAIL_LINES = 3  # of the text, below the steps of a live display


def legend() -> Text:
    """What the colours and numbers of a step mean."""
    parts = [
        ("\u2713 accepted", ACCEPTED),
        ("\u2717 rejected", REJECTED),
        ("- not tried", DIM),
        ("\u2192 bonus token", BONUS),
        ("\u2605 drafter's first choice", BEST),
        ("\u25ce target's first choice", "bold"),
    ]
    return Text(", ").join(Text(*part) for part in parts) + Text("; numbers: draft|target probability")


def shown_step(number: int, step: ShownStep, word: Word, width: int, per_pass: float) -> Group:
    """One step: what was drafted and verified, the tree, what was accepted, the bonus token.

    Args:
        number: of the step, from 1.
        step: the step.
        word: the text of a token.
        width: columns of the terminal.
        per_pass: tokens per pass of the target so far.
    """
    levels = step.topology.depth
    head = Text(f"\nstep {number}: {len(step.accepted)} of {levels} level{'s' * (levels != 1)} accepted, ")
    head.append(f"{per_pass:.2f} tokens per pass so far", style=BONUS)
    words = [None if seen.token is None else word(seen.token) for seen in step.nodes]
    tree = step_tree(
        step.topology,
        words,
        [seen.draft_prob for seen in step.nodes],
        step.accepted,
        None if step.bonus is None else word(step.bonus),
        [seen.target_prob for seen in step.nodes],
        {node for node, seen in enumerate(step.nodes) if seen.state == "unused"},
        step.best_path,
        width,
        {node for node, seen in enumerate(step.nodes) if seen.target_first},
    )
    said = {phase: Text.assemble((f"{phase}: ", "bold"), text) for phase, text in captions(step, word).items()}
    return Group(head, said["draft"], said["verify"], tree, said["accept"], said["bonus"])


class StepPrinter:
    """Prints steps; on a terminal the growing text stands below them while it grows.

    Args:
        console: where to.
        showing: whose steps.
        live: False never draws over what was printed.
    """

    def __init__(self, console: Console, showing: Showing, live: bool = True) -> None:
        self._console, self._showing = console, showing
        self._live = Live(console=console, transient=True, auto_refresh=False) if live and console.is_terminal else None
        self._count = self._emitted = 0

    def __enter__(self) -> StepPrinter:
        self._console.print(prompt_text(self._showing.prompt), soft_wrap=True)
        self._console.print(legend(), highlight=False)
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def step(self, step: ShownStep) -> None:
        """Print a step."""
        self._count += 1
        self._emitted += len(step.tokens)
        shown = shown_step(self._count, step, self._showing.word, self._console.width, self._emitted / self._count)
        self._console.print(shown, highlight=False)
        if self._live:
            self._live.update(self._footer(), refresh=True)

    def _footer(self) -> RenderableType:
        lines = Text(plain_text(self._showing.text())).wrap(self._console, max(1, self._console.width))[-TAIL_LINES:]
        counts = f"{self._count} steps, {1 + self._emitted} tokens, {self._emitted / self._count:.2f} tokens per pass"
        return Group(Text("\u2500" * min(40, self._console.width), style=DIM), *lines, Text(counts, style=DIM))


def prompt_text(prompt: Sequence[Piece]) -> Text:
    """What the target reads: the marks of a chat template dimmed, or all of it where there are none."""
    marked = any(piece.mark for piece in prompt)
    return Text.assemble(*((plain_text(piece.text), "" if marked and not piece.mark else DIM) for piece in prompt))


def whole_text(shown: Shown) -> Text:
    """Prompt and continuation; a reply begins a line of its own."""
    return Text.assemble("\n", prompt_text(shown.before_reply), (plain_text(shown.text), REPLY if shown.marked else ""))


def totals_text(shown: Shown, result: Generation, named: bool = False) -> Group:
    """The text, what was counted, and what to know; `named` where there are several, told apart by their trees."""
    counts = result.tally
    parts = f"1 from the prompt + {counts.accepted_tokens} accepted + {counts.bonus_tokens} bonus"
    names = ("acceptance_rate", "acceptance_length", "block_efficiency")
    ratios = {name.replace("_", " "): getattr(result, name) for name in names}
    tree = f"{shown.about['tree']}: " if named else ""
    lines = [
        f"\n{tree}{counts.new_tokens} tokens = {parts}, {counts.steps} steps",
        ", ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in ratios.items()),
        *(
            [", ".join(f"{name.removesuffix('_s')} {value:.3f} s" for name, value in result.seconds.items())]
            if result.seconds
            else []
        ),
    ]
    return Group(whole_text(shown), *map(Text, lines), *(Text(note, style=DIM) for note in shown.notes))
