"""Texts from elsewhere, read by a target: where is a token not its own, and is that a tie, the engine, or speculation?

Every text is teacher-forced, one forward over it. So each token is judged after the tokens that the text itself has
before it, and a text that left the target's own at a tie is judged to its end. Letters in shapes: B texts of a batch,
m positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from specdraft.models.batch import along, logits_at_once
from specdraft.models.language_model import LanguageModel, padded
from specdraft.sampling.distribution import Sampling, standardise

EQUAL, TIE, ENGINE, BUG = "equal", "tie", "engine", "bug"
VERDICTS = (EQUAL, TIE, ENGINE, BUG)  # a text has the worst one of its tokens
SAME, TARGETS, ANOTHER = "same", "target's", "another"


class Given(NamedTuple):
    """A text from elsewhere.

    Attributes:
        name: its prompt's id.
        prompt_ids, token_ids: the prompt, and what follows it, up to the first end of sequence.
        text: what the engine wrote, where the ids were made of it here.
        after_end: tokens that follow the end of sequence, which are not judged.
    """

    name: str
    prompt_ids: list[int]
    token_ids: list[int]
    text: str | None = None
    after_end: int = 0


class Deviation(NamedTuple):
    """A token that the target would not have chosen there.

    Attributes:
        position: in the text, from 0.
        token: of the text.
        own: the target's most probable one.
        gap: logits between the token and the least probable one that the target could have chosen; greedy: its own.
    """

    position: int
    token: int
    own: int
    gap: float


class Read(NamedTuple):
    """A text as the target reads it; `goes_on`: after its last token the target would not end."""

    given: Given
    deviations: list[Deviation]
    goes_on: bool


class Judged(NamedTuple):
    """What is said of one text.

    Attributes:
        verdict: `equal`; `tie`; `engine`: the engine has that token without speculation too; `bug`.
        first: the first deviation of that verdict.
        counts: deviations by verdict.
        control: what the engine has at `first` without speculation; None where that text is not there, or went
            another way before.
    """

    read: Read
    verdict: str
    first: Deviation | None
    counts: dict[str, int]
    control: str | None

    @property
    def name(self) -> str:
        """Its prompt's id."""
        return self.read.given.name


def up_to_end(token_ids: Sequence[int], eos_ids: frozenset[int]) -> list[int]:
    """Tokens up to the first end of sequence, which is kept."""
    end = next((place for place, token in enumerate(token_ids) if token in eos_ids), len(token_ids))
    return list(token_ids[: end + 1])


@torch.inference_mode()
def read(model: LanguageModel, texts: Sequence[Given], sampling: Sampling, eos_ids: frozenset[int]) -> Iterator[Read]:
    """What the target says along a batch of texts, one forward over each.

    Args:
        model: the target.
        texts: each with a token at least.
        sampling: greedy, or what a sampled text could have been drawn from: a token without probability is none of
            its tokens.
        eos_ids: the target's end-of-sequence tokens.
    """
    longer = [np.array([*text.token_ids, 0]) for text in texts]  # the logits after the last token are wanted too
    tokens = padded([text.tolist() for text in longer], model.device)  # [B, longest + 1]
    parts: list[torch.Tensor] = []
    first = 0
    for logits in along(model, [t.prompt_ids for t in texts], longer, logits_at_once(model, len(texts))):
        parts.append(_apart(logits, tokens[:, first : first + logits.shape[1]], sampling))
        first += logits.shape[1]
    said = torch.cat(parts, 1).cpu().numpy()  # [B, longest + 1, 2]
    for row, text in enumerate(texts):
        gaps, own = said[row, :, 0], said[row, :, 1].astype(np.int64)
        where = np.flatnonzero(~(gaps[: len(text.token_ids)] < 0)).tolist()  # NaN is none of its own either
        found = [Deviation(at, text.token_ids[at], int(own[at]), float(gaps[at])) for at in where]
        ended = text.token_ids[-1] in eos_ids
        yield Read(text, found, not ended and int(own[len(text.token_ids)]) not in eos_ids)


def _apart(logits: torch.Tensor, tokens: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """`[B, m, vocab]` and `[B, m]` -> `[B, m, 2]` float64: how far a token's logit is below the least one that could be
    chosen, -1 where it could be itself; and the most probable token."""
    possible = standardise(logits, sampling) > 0
    least = logits.masked_fill(~possible, torch.inf).min(-1).values
    below = (least - logits.gather(-1, tokens[..., None])[..., 0]).double().clamp_min(0)
    chosen = possible.gather(-1, tokens[..., None])[..., 0]
    return torch.stack([below.masked_fill(chosen, -1), logits.argmax(-1).double()], -1)


def judge(text: Read, tolerance: float, control: Read | None = None) -> Judged:
    """Tie, engine or bug.

    Args:
        text: made with speculation.
        tolerance: logits that rounding may decide between.
        control: what the same engine makes of the prompt without speculation, if that is known.
    """
    held = [_held_against(deviation, text, control) for deviation in text.deviations]
    verdicts = [
        TIE if deviation.gap <= tolerance else ENGINE if said == SAME else BUG
        for deviation, said in zip(text.deviations, held, strict=True)
    ]
    worst = max(verdicts, key=VERDICTS.index, default=EQUAL)
    place = verdicts.index(worst) if verdicts else None
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS[1:]}
    if place is None:
        return Judged(text, EQUAL, None, counts, None)
    return Judged(text, worst, text.deviations[place], counts, held[place])


def _held_against(deviation: Deviation, text: Read, control: Read | None) -> str | None:
    """What the control has at a deviation."""
    if control is None:
        return None
    at, ids, other = deviation.position, text.given.token_ids, control.given.token_ids
    if text.given.prompt_ids != control.given.prompt_ids or ids[:at] != other[:at] or len(other) <= at:
        return None
    return SAME if other[at] == deviation.token else TARGETS if other[at] == deviation.own else ANOTHER
