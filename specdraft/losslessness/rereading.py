"""A text that came without token ids, in tokens: of the many ways to write it, one that the target could have gone.

The tokenizer's own tokens of a text need not be those that made it: after ` wo` a model may say `rd`, where the
tokenizer writes ` word`. Taken as they are, such tokens would look as if the target had not chosen them. So at each
deviation that is no tie other tokens with the text's letters are tried, the likeliest first, which is the target's own
if it has them; then the rest is written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from specdraft.errors import PromptError
from specdraft.losslessness.against import Given, Read

MOST_READINGS = 64  # forwards over a text
LONGEST = 24  # characters of a token that is tried
PART = "\ufffd"  # of a character: what a tokenizer writes for bytes that are none yet


LogitsAfter = Callable[[Sequence[int], Sequence[int]], torch.Tensor]


class Words(Protocol):
    """A tokenizer, as `PairFiles` has it."""

    def decode(self, ids: Sequence[int], after: Sequence[int] = ()) -> str:
        """Text of token ids that stand after others."""

    def encode_plainly(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens around it."""


def tokens_of(text: str, after: Sequence[int], words: Words) -> list[int] | None:
    """Token ids of a text that goes on after others; None where no way to write it reads as that text again."""
    alone = words.encode_plainly(text)
    if words.decode(alone, after) == text:
        return alone
    before = words.decode(after)
    together, prefix = words.encode_plainly(before + text), words.encode_plainly(before)
    rest = together[len(prefix) :]
    return rest if together[: len(prefix)] == prefix and words.decode(rest, after) == text else None


def reread(text: Read, tolerance: float, words: Words, logits_after: LogitsAfter) -> Given | None:
    """The same text in other tokens, of which one more is likelier; None where there is no need, or no way.

    Only the first token that is no tie is looked at: what follows it depends on it.

    Args:
        text: as it was read.
        tolerance: see `against.judge`.
        words: the tokenizer.
        logits_after: the target's, after a prompt and some tokens.

    Raises:
        PromptError: the target's own token there is a part of a character, so the text does not tell.
    """
    first = next((one for one in text.deviations if not one.gap <= tolerance), None)
    if first is None or text.given.text is None:
        return None
    if (other := _with(text.given, first.position, first.own, words)) is not None:
        return other
    kept = text.given.token_ids[: first.position]
    rest = text.given.text[len(words.decode(kept, text.given.prompt_ids)) :]
    beginnings = (words.encode_plainly(rest[:end]) for end in range(1, min(len(rest), LONGEST) + 1))
    logits = logits_after(text.given.prompt_ids, kept)
    likelier = {ids[0] for ids in beginnings if len(ids) == 1 and logits[ids[0]] > logits[first.token]}
    others = (
        _with(text.given, first.position, token, words)
        for token in sorted(likelier, key=lambda token: -float(logits[token]))
    )
    return next((other for other in others if other is not None), None)


def _with(given: Given, position: int, token: int, words: Words) -> Given | None:
    """The text with another token at a position, if its letters are those of the text."""
    assert given.text is not None
    kept, whole = given.token_ids[:position], given.text
    said, longer = words.decode(kept, given.prompt_ids), words.decode([*kept, token], given.prompt_ids)
    if not (whole.startswith(said) and longer.startswith(said) and len(longer) > len(said)):
        return None
    following = whole[len(said) : len(said) + 1]
    if longer.endswith(PART) and longer.rstrip(PART) == said.rstrip(PART) and following > "\x7f":
        raise PromptError(f"at token {position} a character may be written in parts; token ids would tell")
    if position == 0 and not whole[0].isspace():  # some clients strip what they write
        whole = longer[: len(longer) - len(longer.lstrip())] + whole
    if longer.startswith(whole):  # the text was cut within this token
        return given._replace(token_ids=kept, text=said) if kept else None
    if not whole.startswith(longer):
        return None
    rest = tokens_of(whole[len(longer) :], [*given.prompt_ids, *kept, token], words)
    return None if rest is None else given._replace(token_ids=[*kept, token, *rest], text=whole)
