"""What a server says of one request, read with suspicion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple, TypeVar

from specdraft.errors import AnswerError

Value = TypeVar("Value")
Candidates = list[tuple[int, float]]  # token ids (-1: unknown) with the logarithms of their probabilities, best first


class Answer(NamedTuple):
    """What follows some tokens, as a server says it.

    Attributes:
        text: without the token that ended it.
        ids: the tokens; None where the server gives none.
        stopped: it ended by itself, not by its length.
        stopped_by: the token that ended it, where the server says so.
        prompt_tokens, new_tokens: how many it counted; None where it does not say.
        candidates: of each token the most probable ones; None where they are not given of every token.
        prompt_ids: what was asked, as the server read it, where it says so.
        reported: what names the model that answered: name and fingerprint.
    """

    text: str
    ids: list[int] | None
    stopped: bool
    stopped_by: int | None = None
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    candidates: list[Candidates] | None = None
    prompt_ids: list[int] | None = None
    reported: tuple[str | None, str | None] = (None, None)


def read_answer(read: Callable[[], Value], server: str) -> Value:
    """Whatever is missing in an answer, or of another kind than expected, as one `AnswerError`."""
    try:
        return read()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise AnswerError(f"{server}: the answer is not as this API's are ({what})") from error


def token_ids(value: Any) -> list[int] | None:
    """A list of token ids, or None. Raises `ValueError` for anything else."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(token, int) and token >= 0 for token in value):
        raise ValueError("token ids that are none")
    return value


def count(value: Any) -> int | None:
    """How many tokens, or None. Raises `ValueError` for what is no number of them."""
    if value is not None and (not isinstance(value, int) or value < 0):
        raise ValueError(f"{value!r} tokens")
    return value


def sorted_candidates(pairs: Sequence[tuple[int, float]]) -> Candidates:
    """Best first. Raises `ValueError` for a logarithm above 0."""
    best = sorted(((int(token), float(log_prob)) for token, log_prob in pairs), key=lambda pair: -pair[1])
    if best and (not isfinite(best[0][1]) or best[0][1] > 1e-3):
        raise ValueError(f"a log-probability of {best[0][1]}")
    return best


def of_every_token(candidates: list[Candidates], tokens: int | None) -> list[Candidates] | None:
    """Candidates where they are given of every token, two of each at least."""
    whole = len(candidates) == tokens and all(len(some) >= 2 for some in candidates)
    return candidates if whole else None
