"""Does a draft node end a 4-gram that stands in the context already? Of recorded trees, and of trees that grow."""

from __future__ import annotations

import numpy as np

from specdraft.drafters.base import Expansion, RecordedText
from specdraft.drafters.grams import NGRAM, NO_GRAM, TextGrams, child_grams, hashed
from specdraft.prediction.tree_walks import above, depths
from specdraft.trees.shapes.base import TextsBefore


def loops(expansion: Expansion, text: RecordedText) -> np.ndarray:
    """`[T, N]` whether a node ends a 4-gram that ended before: in the prompt, the text, or its own path."""
    context = np.concatenate([np.asarray(text.prompt_ids, dtype=np.int64), text.tokens.astype(np.int64)])
    root = len(text.prompt_ids) + np.arange(len(expansion.parent))[:, None]
    mine = hashed(*_path_tokens(expansion, context, root))
    depth = depths(expansion.parent)
    whole = (root + depth >= NGRAM - 1) & (depth > 0)
    end = np.broadcast_to(root + 1, mine.shape)
    before = TextGrams([context]).stand(mine, np.zeros(mine.shape, dtype=np.int64), end)
    ancestor = expansion.parent.astype(np.int64)
    while (ancestor > 0).any():
        before |= (ancestor > 0) & (above(mine, ancestor) == mine)
        ancestor = np.where(ancestor > 0, above(expansion.parent, ancestor), 0)
    repeated: np.ndarray = before & whole
    return repeated


def _path_tokens(expansion: Expansion, context: np.ndarray, root: np.ndarray) -> list[np.ndarray]:
    """Four times `[T, N]`: the tokens that end at each node, itself first; -1 before the text."""
    shape = expansion.parent.shape
    current = np.broadcast_to(np.arange(1, shape[1] + 1), shape)  # a place in the order, 0 and below: in the text
    found = []
    for _ in range(NGRAM):
        in_text = context[np.maximum(root + np.minimum(current, 0), 0)]
        found.append(np.where(current > 0, above(expansion.token, current), np.where(root + current < 0, -1, in_text)))
        current = np.where(current > 0, above(expansion.parent, current), current - 1)
    return found


class GrowingPaths:
    """The paths to the nodes of trees that grow, which have the numbers of `Growth`; see `NodeScores`.

    Args:
        before: the texts up to the roots.
    """

    def __init__(self, before: TextsBefore) -> None:
        self._before, self._last, self._root = before, before.last, np.arange(len(before))
        self._ended = np.empty((len(before), 0), dtype=np.int64)  # [nodes, depth] the 4-grams that end on each path
        self._above, self._tokens, self._grams = self._root, self._last, self._ended  # of the last children

    def loops(self, above: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """`[m, K]` whether children of nodes `[m]` end a 4-gram that stands before them: in the text, or on their own
        path."""
        self._above, self._tokens, self._grams = above, tokens, child_grams(self._last[above], tokens)
        on_path = (self._grams[:, :, None] == self._ended[above][:, None, :]).any(-1)
        repeated: np.ndarray = on_path | self._before.had(self._root[above], self._grams)
        return repeated

    def keep(self, rows: np.ndarray, ranks: np.ndarray) -> None:
        """See `NodeScores.keep`."""
        parent = self._above[rows]
        token, gram = (field[rows, ranks][:, None] for field in (self._tokens, self._grams))
        self._last = np.concatenate([self._last, np.concatenate([token, self._last[parent, :-1]], 1)])
        self._root = np.concatenate([self._root, self._root[parent]])
        path = np.concatenate([gram, self._ended[parent]], 1)
        deeper = (path[:, -1] != NO_GRAM).any()
        known = np.pad(self._ended, ((0, 0), (0, 1)), constant_values=NO_GRAM) if deeper else self._ended
        self._ended = np.concatenate([known, path if deeper else path[:, :-1]])
