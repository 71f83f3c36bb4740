"""The two halves of lookahead decoding that hold tokens: the window that the target fills, and the n-grams from it.

Letters in shapes: W columns, N tokens of an n-gram, r rows and C columns of the window as it is now (N - 1 and W once
it is full).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from specdraft.trees.draft_tree import Beside

SEED = 0  # of the tokens that a window starts with


class Window:
    """Guessed tokens after the root, row by row (Fu et al. 2024): cell (i, j) stands i + j places after it.

    Row 0 begins with the root. A cell sees row 0 up to its column, and its column up to its row; what the target says
    after the last row continues each column by a token. Row 0 starts as tokens of the prompt, drawn at random with a
    fixed seed; the other rows come from the target, one a step, and each of these steps takes a column off.

    Args:
        columns: W.
        level: N, 3 or more.
        prompt_ids: the prompt.
    """

    def __init__(self, columns: int, level: int, prompt_ids: Sequence[int]) -> None:
        self._most_rows = level - 1
        first = np.random.default_rng(SEED).choice(np.array(prompt_ids or [0]), columns + level - 2)
        self._rows = first[None]  # [r, C]; the first cell is the root's

    def beside(self, root: int) -> Beside:
        """The window after this root, all cells but the root's own, row by row."""
        self._rows[0, 0] = root
        row, column = np.indices(self._rows.shape).reshape(2, -1)
        return Beside(self._rows.ravel()[1:].copy(), (row + column)[1:], _visible(*self._rows.shape)[1:])

    def move(self, best: np.ndarray) -> np.ndarray:
        """Go on to the next step, whatever was accepted; `[W, N]` the n-grams of the columns, none until it is full.

        Args:
            best: `[r * C - 1]` the target's best token after each token beside the root.
        """
        rows, columns = self._rows.shape
        if rows < self._most_rows:
            self._rows = np.concatenate([self._rows[:, 1:], best[None, 1 - columns :]])
            return np.empty((0, self._most_rows + 1), dtype=np.int64)
        whole = np.concatenate([self._rows, best[None, -columns:]])
        self._rows = whole[1:].copy()
        return whole.T


@lru_cache(maxsize=64)
def _visible(rows: int, columns: int) -> np.ndarray:
    """`[r * C, r * C]` bool: what cells see of each other."""
    row, column = np.indices((rows, columns)).reshape(2, -1)
    above = (column == column[:, None]) & (row <= row[:, None])
    seen: np.ndarray = above | ((row == 0) & (column <= column[:, None]))
    return seen


class NgramPool:
    """N-grams by their first token.

    Args:
        most: of each first token, G: the ones that were seen last.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._after: dict[int, dict[tuple[int, ...], None]] = {}  # in the order in which they were last seen

    def file(self, ngrams: Iterable[Sequence[int]]) -> None:
        """Keep n-grams, the last one as the newest."""
        for first, *others in ngrams:
            known = self._after.setdefault(first, {})
            known.pop(tuple(others), None)
            known[tuple(others)] = None
            if len(known) > self._most:
                del known[next(iter(known))]

    def after(self, token: int) -> list[tuple[int, ...]]:
        """What followed a token, `[N - 1]` each, the newest first."""
        return [*reversed(self._after.get(token, {}))]
