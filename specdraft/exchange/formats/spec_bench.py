"""Answers of Spec-Bench (evaluation/eval.py) and of EAGLE (eagle/evaluation/gen_ea_answer_*.py), one question a line.

`choices[].accept_lengths` has each step's tokens, the bonus token included; `decoding_steps` and `new_tokens` are by
turn. EAGLE's scripts, and Spec-Bench's for EAGLE, write `idxs`: the index of the last step, from 0. Spec-Bench's mean
accepted tokens is the mean over all steps of the file (evaluation/speed.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, ClassVar

import numpy as np

from specdraft.exchange.formats.base import DEEPEST, Format, number, survival, whole_numbers
from specdraft.exchange.reading import Counts, Figure, Reading, mean_of_ratios, share
from specdraft.exchange.source import ForeignFile, Row

STEPS, INDICES, LENGTHS = "decoding_steps", "idxs", "accept_lengths"
MEANS = "tokens of a step, the bonus token included, over all steps of the file"
OURS = ("drafted_tokens", "accepted_tokens", "bonus_tokens")  # by turn, in what `specdraft export` writes


@dataclass
class SpecBench(Format):
    """One record a question; the first choice is read, as Spec-Bench's own script does."""

    kind: ClassVar[str] = "spec-bench"
    about: ClassVar[str] = "answers of Spec-Bench or EAGLE"

    def recognises(self, file: ForeignFile) -> bool:
        """See `Format`."""
        return any("question_id" in row and _choice(row) is not None for row in file.rows)

    def read(self, file: ForeignFile) -> Reading:
        """See `Format`."""
        choices = [choice for row in file.rows if (choice := _choice(row)) is not None]
        if not any(LENGTHS in choice or STEPS in choice or INDICES in choice for choice in choices):
            raise file.refuse(
                f"has neither {LENGTHS} nor {STEPS} nor {INDICES}: plain decoding's, or an older version's"
            )
        requests = [_counts(choice, file) for choice in choices]
        drafting = [one for one in requests if one.steps]
        if not drafting:
            raise file.refuse("has no decoding step")
        total = Counts.total(drafting)
        return Reading(
            self.kind, self.about, [*_figures(choices, drafting, total, file)], total, drafting,
            _marginal(choices, file), None, [*_notes(choices, file)],
        )  # fmt: skip


def _choice(row: Row) -> dict[str, Any] | None:
    """A question's first choice, where it has what is counted."""
    choices = row.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) and "new_tokens" in first else None


def _by_turn(choice: dict[str, Any], name: str, file: ForeignFile) -> list[int] | None:
    return whole_numbers(choice, name, file) if name in choice else None


def _steps_of(choice: dict[str, Any], file: ForeignFile) -> int:
    """How many steps, whether they were listed, counted from 1, or indexed from 0."""
    if (lengths := _by_turn(choice, LENGTHS, file)) is not None:
        return len(lengths)
    if (steps := _by_turn(choice, STEPS, file)) is not None:
        return sum(steps)
    return sum(index + 1 for index in _by_turn(choice, INDICES, file) or [])


def _counts(choice: dict[str, Any], file: ForeignFile) -> Counts:
    steps, emitted = float(_steps_of(choice, file)), float(sum(whole_numbers(choice, "new_tokens", file)))
    if all(name in choice for name in OURS):
        drafted, accepted, bonus = (_sum(choice, name, file) for name in OURS)
        return Counts(steps, drafted, accepted, bonus, emitted)
    lengths = _by_turn(choice, LENGTHS, file)
    if odd := [length for length in lengths or [] if not 1 <= length <= DEEPEST]:
        raise file.refuse(f"{LENGTHS} has a step of {odd[0]} tokens; expected 1 or more: the bonus token counts")
    tokens = float(sum(lengths)) if lengths is not None else emitted
    if steps and not tokens:
        raise file.refuse("has no new_tokens: answers of plain decoding, where nothing is drafted")
    if tokens < steps:
        raise file.refuse(f"has {tokens:g} tokens in {steps:g} steps; these counts contradict each other")
    return Counts(steps, nan, tokens - steps, steps, emitted)


def _sum(choice: dict[str, Any], name: str, file: ForeignFile) -> float:
    values = choice[name]
    if not isinstance(values, list):
        raise file.refuse(f"{name}={values!r} is no list; expected a number for each turn")
    return sum(number({name: value}, name, file) for value in values)


def _figures(
    choices: Sequence[dict[str, Any]], requests: Sequence[Counts], total: Counts, file: ForeignFile
) -> Iterator[Figure]:
    tokens = ("accepted_tokens", "bonus_tokens")
    overall = (total.accepted_tokens + total.bonus_tokens) / total.steps
    yield Figure("#Mean accepted tokens", overall, MEANS, "block_efficiency")
    each = mean_of_ratios(requests, tokens, "steps")
    yield Figure("the same, mean over questions", each, "the same of each question, then their mean")
    if not isnan(total.drafted_tokens):
        rate = share(total.accepted_tokens, total.drafted_tokens)
        yield Figure("accepted_tokens / drafted_tokens", rate, "of what specdraft adds", "acceptance_rate")
    if indexed := [index for choice in choices for index in _by_turn(choice, INDICES, file) or []]:
        below = sum(indexed)
        means = "with the index of the last step, from 0, taken for the number of steps: too large"
        if below:
            yield Figure("tokens / idxs", total.new_tokens / below, means)
    timed = [
        (sum(choice["new_tokens"]), _sum(choice, "wall_time", file)) for choice in choices if "wall_time" in choice
    ]
    if timed and all(wall_s > 0 for _, wall_s in timed):
        speeds = [tokens / wall_s for tokens, wall_s in timed]
        yield Figure("Tokens per second", float(np.mean(speeds)), "of each question, then their mean", "tokens_per_s")


def _marginal(choices: Sequence[dict[str, Any]], file: ForeignFile) -> list[float]:
    """`[depth]` of the listed steps; a cut last step lists its accepted tokens only, which reads as one fewer."""
    lengths = [_by_turn(choice, LENGTHS, file) for choice in choices]
    known = np.array([length for one in lengths for length in one or []], dtype=np.int64)
    if not len(known) or any(one is None for one in lengths) or any(OURS[0] in choice for choice in choices):
        return []
    return survival([float(count) for count in np.bincount(known - 1)])


def _notes(choices: Sequence[dict[str, Any]], file: ForeignFile) -> Iterator[str]:
    if any(LENGTHS not in choice and INDICES in choice for choice in choices):
        yield f"{INDICES} is the index of the last step, from 0: steps are one more in every turn"
    if not any(LENGTHS in choice or OURS[0] in choice for choice in choices):
        yield "new_tokens count the token of the prefill or not, as the method has it: up to one a turn too many"
    if not all(OURS[0] in choice for choice in choices):
        yield "how many tokens were drafted is not told: there is no acceptance rate"
