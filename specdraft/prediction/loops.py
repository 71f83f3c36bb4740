"""Does a draft node end a 4-gram that stands in the context already? Of recorded trees, and of a tree that grows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from specdraft.drafters.base import Expansion, RecordedText
from specdraft.prediction.tree_walks import above, depths

NGRAM = 4  # as in `metrics.looped_tokens`


def loops(expansion: Expansion, text: RecordedText) -> np.ndarray:
    """`[T, N]` whether a node ends a 4-gram that ended before: in the prompt, the text, or its own path."""
    context = np.concatenate([np.asarray(text.prompt_ids, dtype=np.int64), text.tokens.astype(np.int64)])
    first = len(text.prompt_ids)
    grams = hashed(np.stack([_shifted(context, back) for back in range(NGRAM)], -1))
    known, ended = np.unique(grams, return_index=True)  # a 4-gram, and where it ended first
    root = first + np.arange(len(expansion.parent))[:, None]
    path = _path_tokens(expansion, context, root)
    mine = hashed(path)
    place = np.minimum(np.searchsorted(known, mine), len(known) - 1)
    depth = depths(expansion.parent)
    whole = (root + depth >= NGRAM - 1) & (depth > 0)
    before: np.ndarray = (known[place] == mine) & (ended[place] <= root)
    ancestor = expansion.parent.astype(np.int64)
    while (ancestor > 0).any():
        before |= (ancestor > 0) & (above(mine, ancestor) == mine)
        ancestor = np.where(ancestor > 0, above(expansion.parent, ancestor), 0)
    repeated: np.ndarray = before & whole
    return repeated


def _path_tokens(expansion: Expansion, context: np.ndarray, root: np.ndarray) -> np.ndarray:
    """`[T, N, 4]` the tokens that end at each node, itself first; -1 before the text."""
    shape = expansion.parent.shape
    current = np.broadcast_to(np.arange(1, shape[1] + 1), shape)  # a place in the order, 0 and below: in the text
    found = []
    for _ in range(NGRAM):
        in_text = context[np.maximum(root + np.minimum(current, 0), 0)]
        found.append(np.where(current > 0, above(expansion.token, current), np.where(root + current < 0, -1, in_text)))
        current = np.where(current > 0, above(expansion.parent, current), current - 1)
    return np.stack(found, -1)


def _shifted(context: np.ndarray, back: int) -> np.ndarray:
    return np.concatenate([np.full(min(back, len(context)), -1), context[: max(len(context) - back, 0)]])


def hashed(grams: np.ndarray) -> np.ndarray:
    """`[..., 4]` tokens -> `[...]` 64-bit numbers that are equal by chance about never."""
    mixed = np.zeros(grams.shape[:-1], dtype=np.uint64)
    for column in np.moveaxis(grams.astype(np.uint64), -1, 0):
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


class Grams:
    """The 4-grams of a text that grows by what is committed.

    Args:
        tokens: the text so far.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._end, self._known = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
        self.commit(tokens)

    def commit(self, tokens: Sequence[int]) -> None:
        """Tokens that follow."""
        text = np.concatenate([self._end, np.asarray(tokens, dtype=np.int64)])
        if len(text) >= NGRAM:
            ended = np.lib.stride_tricks.sliding_window_view(text, NGRAM)[:, ::-1]
            self._known = np.union1d(self._known, hashed(ended))
        self._end = text[1 - NGRAM :]

    @property
    def last(self) -> np.ndarray:
        """`[3]` the text's last tokens, the newest first; -1 before its beginning."""
        newest = self._end[::-1]
        return np.concatenate([newest, np.full(NGRAM - 1 - len(newest), -1)])

    def loops(self, grams: np.ndarray, on_path: np.ndarray) -> np.ndarray:
        """`[m, K]` whether the 4-grams that these children end (see `child_grams`) stood in the text, or among those
        that the nodes above them end, `[m, d]`."""
        above = (grams[:, :, None] == on_path[:, None, :]).any(-1)
        repeated: np.ndarray = above | np.isin(grams, self._known)
        return repeated


def child_grams(last: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """`[m, K]` the 4-grams, as numbers, that children `tokens` `[m, K]` end after nodes whose last tokens are `last`
    `[m, 3]`, the newest first."""
    shape = (*tokens.shape, 1)
    before = np.broadcast_to(last[:, None, :], (*tokens.shape, NGRAM - 1))
    return hashed(np.concatenate([tokens.reshape(shape), before], -1))
