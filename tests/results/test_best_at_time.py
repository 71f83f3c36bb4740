"""The fastest of many, chosen on one half of the prompts and timed on the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from specdraft.results.best_at_time import Times, contest, fastest, speed_ratio, verdict
from specdraft.results.intervals import Interval

HALVES = np.array([0, 1] * 10)
KINDS = ["a"] * 10 + ["b"] * 10


def times(seconds: dict[str, np.ndarray]) -> Times:
    return Times([*seconds], np.stack([*seconds.values()]), np.full(20, 3.0), KINDS)


def test_each_half_is_timed_with_what_is_fastest_on_the_other() -> None:
    even, odd = (np.where(half == HALVES, 1.0, 2.0) for half in (0, 1))
    found = fastest(times({"good on 0": even, "good on 1": odd * 1.001}), HALVES)
    assert found.name == "good on 0"
    assert found.seconds.tolist() == [2.0 if half else 2.0 * 1.001 for half in HALVES]  # each is bad where it is timed


def test_choosing_among_equals_wins_nothing() -> None:
    noise = np.random.default_rng(0).lognormal(sigma=0.3, size=(200, 20))
    many = times({f"c{n}": row for n, row in enumerate(noise)})
    flattering = many.seconds.sum(1).min() / noise.mean(0).sum()
    honest = fastest(many, HALVES).seconds.sum() / noise.mean(0).sum()
    assert flattering < 0.9
    assert honest > 0.94


def test_estimates_are_read_from_records() -> None:
    rows = [
        {"tree": tree, "budget": 4, "prompt_id": str(n), "category": "x", "new_tokens": 30, "est_tokens_per_s": rate,
         "est_speedup": rate / 10}
        for tree, rate in (("chain", 15.0), ("kary", 20.0))
        for n in range(6)
    ]  # fmt: skip
    found = Times.estimated(pd.DataFrame(rows), ["tree", "budget"])
    assert found.names == ["chain 4", "kary 4"]
    assert found.seconds.tolist() == [[2.0] * 6, [1.5] * 6]
    assert found.plain_s.tolist() == [3.0] * 6


def test_ratios_are_paired_over_prompts() -> None:
    slow = np.arange(1.0, 21.0)
    assert speed_ratio(slow * 2, slow, KINDS).value == 2
    ratio = speed_ratio(slow * np.linspace(1.1, 1.3, 20), slow, KINDS)
    assert 1.1 < ratio.low < ratio.value < ratio.high < 1.3


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Interval(1.2, 1.1, 1.3), "tree"),
        (Interval(0.8, 0.7, 0.9), "chain"),
        (Interval(1.1, 0.9, 1.3), "open"),
        (Interval(1.0, np.nan, np.nan), "equal"),
        (Interval(1.1, np.nan, np.nan), "open"),
    ],
)
def test_verdicts_are_beyond_the_interval(ratio: Interval, said: str) -> None:
    assert verdict(ratio, "tree", "chain") == said


def test_families_without_candidates_are_left_out() -> None:
    one = times({"chain": np.ones(20), "kary": np.full(20, 2.0)})
    found = contest(one, {"chain": [True, False], "tree": [False, True], "none": [False, False]}, HALVES)
    assert {name: best.name for name, best in found.items()} == {"chain": "chain", "tree": "kary"}
    with pytest.raises(ValueError, match="no candidates"):
        fastest(one.only([False, False]), HALVES)
