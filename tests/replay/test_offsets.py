"""The offset curve against a loop over roots."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from specdraft.replay.offsets import chain_length, offset_curve
from specdraft.trees.ranks import PackedRanks


def packed(offsets: int | None) -> PackedRanks:
    """Three texts of different lengths; half of all ranks are 0."""
    random, last = np.random.default_rng(5), np.array([30, 11, 1])
    shape = (3, 32) if offsets is None else (3, 32, offsets)
    ranks = random.integers(0, 2, shape).astype(np.int32)
    ranks[:, 0] = -1
    for row, end in enumerate(last):
        ranks[row, end + 1 :] = -1
    return PackedRanks(ranks, last, np.zeros(3, dtype=np.int64))


def slow_curve(some: PackedRanks, offsets: int) -> pd.DataFrame:
    def rank(row: int, place: int, offset: int) -> int:
        return int(some.ranks[row, place] if some.ranks.ndim == 2 else some.ranks[row, place, offset - 1])

    rows = []
    for offset in range(1, offsets + 1):
        places = top = reached = accepted = fresh = 0
        for row, last in enumerate(some.last.tolist()):
            for root in range(last - offset + 1):
                hit = rank(row, root + offset, offset) == 0
                got_there = all(rank(row, root + d, d) == 0 for d in range(1, offset))
                places, top, reached = places + 1, top + hit, reached + got_there
                accepted += got_there and hit
                fresh += got_there and rank(row, root + offset, 1) == 0
        rows.append([offset, places, top, reached, accepted, fresh])
    return pd.DataFrame(rows, columns=["offset", "places", "top", "reached", "accepted", "fresh"])


@pytest.mark.parametrize("offsets", [None, 3, 6])
def test_the_curve_is_what_a_loop_over_roots_counts(offsets: int | None) -> None:
    curve = offset_curve(packed(offsets), deepest=5)
    pd.testing.assert_frame_equal(curve, slow_curve(packed(offsets), min(offsets or 5, 5)))
    assert curve["accepted"].iloc[1] > 0
    if offsets is None:  # a draft model reads the text itself: nothing drifts
        assert curve["accepted"].equals(curve["fresh"])
    else:
        assert not curve["accepted"].equals(curve["fresh"])


def test_texts_that_are_shorter_than_the_curve() -> None:
    some = PackedRanks(np.array([[-1, 0, -1]]), np.array([1]), np.zeros(1, dtype=np.int64))
    assert offset_curve(some)["accepted"].tolist() == [1, *[0] * 7]


def test_a_chains_accepted_tokens() -> None:
    assert chain_length(np.array([0.5, 0.4, 0.0, 0.9])) == pytest.approx(0.5 + 0.2)
