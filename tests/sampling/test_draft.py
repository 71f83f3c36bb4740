"""The drafter's own temperatures."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from specdraft.errors import ConfigError
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.draft import AS_TARGET, Drawn, PairSampling

SAMPLING = Sampling(0.8, top_k=5, top_p=0.9)


@pytest.mark.parametrize(
    ("said", "temperatures"),
    [
        (None, ()),
        (0.8, ()),
        ([0.8], ()),
        ([0.8, 0.8], ()),
        (1, (1.0,)),
        (0, (0.0,)),
        ([1, 0.6, 0.6], (1.0, 0.6)),
        ((0.8, 0.6), (0.8, 0.6)),
        ([0.6, 0.8], (0.6, 0.8)),
    ],
)
def test_the_shortest_form(said: Any, temperatures: tuple[float, ...]) -> None:
    assert Drawn.of(said, SAMPLING).temperatures == temperatures


def test_by_depth() -> None:
    drawn = Drawn.of([1, 0.8, 0.6], SAMPLING)
    assert [drawn.at(depth, SAMPLING) for depth in (1, 2, 3, 9)] == [
        Sampling(temperature, 5, 0.9) for temperature in (1, 0.8, 0.6, 0.6)
    ]
    assert AS_TARGET.at(3, SAMPLING) is SAMPLING
    assert [level.label for level in drawn.levels] == ["1", "", "0.6"]  # the second is the target's
    assert AS_TARGET.levels == [AS_TARGET]
    assert (drawn.coldest(SAMPLING), AS_TARGET.coldest(SAMPLING)) == (0.6, 0.8)


def test_labels() -> None:
    assert (Drawn.of([1, 0.8], Sampling(1)).label, Drawn.of(0.5, Sampling(1)).label, AS_TARGET.label) == (
        "1-0.8",
        "0.5",
        "",
    )
    assert (Drawn.of([1, 0.8], Sampling(1)).said, Drawn.of(0.5, Sampling(1)).said) == ("[1,0.8]", "0.5")


@pytest.mark.parametrize("said", [-1, 1e-9, inf, nan, True, "hot", [], [1, "x"], [[1]], {"a": 1}, [None]])
def test_what_is_no_temperature(said: Any) -> None:
    with pytest.raises(ConfigError, match=r"sampling\.draft_temperature=.* is out of range; expected 0 .*, or a list"):
        PairSampling(1.0, draft_temperature=said).check()


def test_the_target_does_not_know_of_it() -> None:
    """What names recorded texts and their seeds is the same whatever the drafter draws with."""
    said = PairSampling(0.7, 3, 0.9, draft_temperature=[1, 0.5])
    assert repr(said.target) == repr(Sampling(0.7, 3, 0.9))
    assert said.drawn == Drawn((1.0, 0.5), 0.7)
