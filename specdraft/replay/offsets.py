"""How a drafter's acceptance falls with the distance from the root, and what of that is its own states' doing.

A drafter that reads the target's states has those of the text up to the root only; further below it reads what it made
itself. Its training accuracy is that of the first offset, where all it reads is the target's.

Letters: P texts, S positions of the longest, O offsets.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from specdraft.trees.ranks import PackedRanks, ahead, at_depth

DEEPEST = 8  # offsets of a drafter that goes on for ever


def offset_curve(packed: PackedRanks, deepest: int = DEEPEST) -> pd.DataFrame:
    """The curve of greedy texts, every place of which is taken as a root: no step structure, no tree.

    Args:
        packed: the drafter's ranks along the texts.
        deepest: offsets at most.

    Returns:
        A row for each offset d from 1, the token d places behind a root:
        `places`, roots that have one; `top`, of these, where it is the drafter's first choice at that offset, whatever
        it would have proposed on the way; `reached`, roots behind which its first choices were the text's so far;
        `accepted`, of these, where it goes on (free-running); `fresh`, of the same, where the drafter's first choice is
        the text's if the root stands right before that token (teacher-forced: the target's own states up to there).
    """
    offsets = min(packed.levels or deepest, deepest)
    order = np.arange(packed.ranks.shape[1])
    first = at_depth(packed.ranks, 1) == 0
    going = np.ones(packed.ranks.shape[:2], dtype=bool)
    rows = []
    for offset in range(1, offsets + 1):
        there = (order + offset)[None] <= packed.last[:, None]
        top, fresh = (ahead(hit, offset) & there for hit in (at_depth(packed.ranks, offset) == 0, first))
        reached = going & there
        going = reached & top
        counts = (there, top, reached, going, reached & fresh)
        rows.append([offset, *(int(count.sum()) for count in counts)])
    return pd.DataFrame(rows, columns=["offset", "places", "top", "reached", "accepted", "fresh"])


def chain_length(rates: np.ndarray) -> float:
    """Accepted tokens of a chain whose levels are accepted at these rates `[D]`, each given the one before."""
    return float(np.cumprod(rates).sum())
