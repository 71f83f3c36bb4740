"""The 4-grams of texts below which trees grow: whether one stood before tells whether a node will be accepted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NGRAM = 4  # as in `metrics.looped_tokens`
NO_GRAM = np.int64(2**63 - 1)  # sorted behind all others
PLACES = tuple(np.random.default_rng(0).integers(2**63, size=NGRAM + 1) | 1)  # factors of four tokens, and of a text


def hashed(*tokens: np.ndarray) -> np.ndarray:
    """64-bit numbers of 4-grams, equal by chance about never: sums that wrap around. Of arrays that broadcast, the
    newest tokens first."""
    total: np.ndarray = sum(some.astype(np.int64, copy=False) * by for some, by in zip(tokens, PLACES, strict=False))
    return total


def child_grams(last: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """`[m, K]` the 4-grams, as numbers, that children `tokens` `[m, K]` end after nodes whose last tokens are `last`
    `[m, 3]`, the newest first."""
    return hashed(tokens, *(last[:, [back]] for back in range(NGRAM - 1)))


def _ended(text: np.ndarray) -> np.ndarray:
    """`[L - 3]` the 4-grams of a text `[L]`, in the order in which they end."""
    count = max(len(text) + 1 - NGRAM, 0)
    return hashed(*(text[start : start + count] for start in reversed(range(NGRAM))))


class TextGrams:
    """The 4-grams of several texts, and where each ended first; worked out when they are asked for.

    Args:
        texts: token ids.
    """

    def __init__(self, texts: Iterable[np.ndarray]) -> None:
        self._texts = texts

    @cached_property
    def _side_by_side(self) -> tuple[np.ndarray, np.ndarray]:
        """All texts `[sum of L + 3]`, three tokens that are none before each; `[texts]` where each begins."""
        padding = np.full(NGRAM - 1, -1)
        padded = [np.concatenate([padding, text]) for text in self._texts]
        return np.concatenate(padded), np.cumsum([NGRAM - 1, *map(len, padded[:-1])])

    @cached_property
    def _first(self) -> tuple[np.ndarray, np.ndarray]:
        """Every 4-gram of every text, sorted, and how many tokens of its text it needs."""
        tokens, begin = self._side_by_side
        ended, place = _ended(tokens), np.arange(NGRAM, len(tokens) + 1)  # tokens up to its last one
        text = np.searchsorted(begin, place, "left") - 1
        known, which = np.unique(_in_text(ended, text), return_index=True)
        return known, (place - begin[text])[which]

    def stand(self, grams: np.ndarray, text: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Whether each 4-gram is among the first `end` tokens of its text; all of one shape."""
        known, needed = self._first
        wanted = _in_text(grams, text)
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        there: np.ndarray = (known[place] == wanted) & (needed[place] <= end)
        return there

    def last(self, text: np.ndarray, end: np.ndarray) -> np.ndarray:
        """`[m, 3]` the last of the first `end` `[m]` tokens of texts `[m]`, the newest first; -1 before a beginning."""
        tokens, begin = self._side_by_side
        last: np.ndarray = tokens[(begin[text] + end)[:, None] - np.arange(1, NGRAM)]
        return last


def _in_text(grams: np.ndarray, text: np.ndarray) -> np.ndarray:
    """4-grams of different texts are different numbers."""
    apart: np.ndarray = grams + text * PLACES[-1]
    return apart


@dataclass(frozen=True)
class RecordedRoots:
    """See `TextsBefore`: roots `[r]` in recorded texts.

    Attributes:
        grams: of the texts.
        text: `[r]` which of them.
        end: `[r]` how many of its tokens there are up to the root, itself included.
    """

    grams: TextGrams
    text: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.text)

    @property
    def last(self) -> np.ndarray:
        """See `TextsBefore.last`."""
        return self.grams.last(self.text, self.end)

    def had(self, root: np.ndarray, grams: np.ndarray) -> np.ndarray:
        """See `TextsBefore.had`."""
        text, end = (np.broadcast_to(field[root][:, None], grams.shape) for field in (self.text, self.end))
        return self.grams.stand(grams, text, end)


class GrowingText:
    """A text that grows by what is committed; its 4-grams are worked out when they are asked for.

    Args:
        tokens: the text so far.
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self._tokens, self._read = list(tokens), 0
        self._known = np.array([NO_GRAM])

    def commit(self, tokens: Sequence[int]) -> None:
        """Tokens that follow."""
        self._tokens += tokens

    def until(self, root: int) -> LiveRoot:
        """What stands before a tree whose root follows the text."""
        return LiveRoot(self, root)

    @property
    def end(self) -> list[int]:
        """The last tokens, three at most."""
        return self._tokens[1 - NGRAM :]

    def had(self, grams: np.ndarray) -> np.ndarray:
        """Whether each of these 4-grams stands in it."""
        known = self.known
        there: np.ndarray = known[np.searchsorted(known, grams)] == grams
        return there

    @property
    def known(self) -> np.ndarray:
        """Its 4-grams, sorted, and `NO_GRAM`."""
        if self._read < len(self._tokens):
            new = _ended(np.array(self._tokens[max(self._read + 1 - NGRAM, 0) :]))
            self._known = np.sort(np.concatenate([self._known, new]))
            self._read = len(self._tokens)
        return self._known


class LiveRoot:
    """See `TextsBefore`: the one root below which a tree is drafted.

    Args:
        text: what was committed before.
        root: its token.
    """

    def __init__(self, text: GrowingText, root: int) -> None:
        self._text, self._root = text, root

    def __len__(self) -> int:
        return 1

    @property
    def last(self) -> np.ndarray:
        """See `TextsBefore.last`."""
        return self._newest[:, :-1]

    def had(self, root: np.ndarray, grams: np.ndarray) -> np.ndarray:
        """See `TextsBefore.had`."""
        there: np.ndarray = self._text.had(grams) | (grams == self._own)
        return there

    @cached_property
    def _newest(self) -> np.ndarray:
        """`[1, 4]` the last tokens, the newest first."""
        return np.array([[self._root, *self._text.end[::-1], *[-1] * NGRAM][:NGRAM]])

    @cached_property
    def _own(self) -> np.ndarray:
        """`[1]` the 4-gram that the root ends."""
        return hashed(*self._newest.T)
