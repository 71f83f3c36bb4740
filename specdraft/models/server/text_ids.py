"""Token ids of texts that a server says or is sent: where a text does not give the tokens back, that is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specdraft.errors import AnswerError

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what stands for the bytes of a letter that is cut


def sent_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text that a server's tokenizer, with the special tokens that it adds, reads as these ids.

    Raises:
        AnswerError: there is none.
    """
    around = list(tokenizer.encode(""))  # as a token that begins every text
    for left_out in (len(around), 0) if list(ids[: len(around)]) == around else (0,):
        text = _text(tokenizer, ids[left_out:])
        if list(tokenizer.encode(text)) == list(ids):
            return text
    raise AnswerError("as a text its tokens are others, and the server takes no token ids")


def ids_after(tokenizer: Any, ids: Sequence[int], text: str) -> list[int]:
    """The tokens of a text behind others, where that is sure.

    Raises:
        AnswerError: read together they are other tokens, or give another text.
    """
    whole = list(tokenizer.encode(_text(tokenizer, ids) + text, add_special_tokens=False))
    before, after = whole[: len(ids)], whole[len(ids) :]
    back = _text(tokenizer, whole).removeprefix(_text(tokenizer, ids))
    if before != list(ids) or back != text or UNFINISHED in text:
        raise AnswerError("its text does not come back from the tokens that it is encoded as")
    return after


def told_otherwise(tokenizer: Any, ids: Sequence[int], text: str) -> str | None:
    """Why ids are not those of a text; None where they are, but for spaces, special tokens and letters that are cut."""
    spelled = [_text(tokenizer, ids), str(tokenizer.decode(list(ids), skip_special_tokens=True))]
    if any(UNFINISHED in one for one in (*spelled, text)) or any(one.split() == text.split() for one in spelled):
        return None
    if any("".join(one.split()).startswith("".join(text.split())) for one in spelled if text.strip()):
        return None  # the token that ended it is spelled out here only
    return f"the text of its tokens is {spelled[1][:40]!r} here, and it says {text[:40]!r}: its tokenizer is another"


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    """Special tokens spelled out, spaces as they are."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
