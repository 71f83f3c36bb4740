"""What beam search ends with, as a tree: beside a plain beam search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.growing import VOCAB, grown, said

from specdraft.acceptance import Greedy
from specdraft.decoding.fitting import Together
from specdraft.drafters.base import DrafterTraits
from specdraft.errors import ConfigError
from specdraft.sampling.distribution import Sampling
from specdraft.trees.beam_growth import BeamSearchGrowth
from specdraft.trees.shapes.beam_search import BeamSearch
from specdraft.trees.topology import RankPath


def by_hand(seed: int, budget: int, width: int, steps: int) -> list[RankPath]:
    """Every sequence goes on with every token, the best stay; then their prefixes, each once."""
    beams: list[tuple[float, RankPath]] = [(0.0, ())]
    for _ in range(steps):
        further = [
            (score + float(value), (*path, rank))
            for score, path in beams
            for rank, value in enumerate(said(seed, path))
        ]
        beams = sorted(further, key=lambda one: (-one[0], one[1]))[:width]
    return list(dict.fromkeys(path[:depth] for _, path in beams for depth in range(1, steps + 1)))[:budget]


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
    st.integers(1, 30),
    st.integers(1, 8),
    st.integers(1, 5),
    st.booleans(),
)
def test_trees_are_what_a_plain_beam_search_ends_with(
    seeds: list[int], budget: int, width: int, steps: int, parts: bool
) -> None:
    expected = [by_hand(seed, budget, width, steps) for seed in seeds]
    growth = BeamSearchGrowth(len(seeds), budget, steps, min(width, VOCAB), width)
    assert grown(said, seeds, growth, np.random.default_rng(budget) if parts else None) == expected
    assert len(expected[0]) <= BeamSearch(width=width, steps=steps).limits(budget).nodes


def test_a_small_budget_needs_a_drafter_that_goes_as_deep() -> None:
    shape = BeamSearch(steps=8)
    assert shape.limits(2).depth == shape.at(2).depth == 8
    traits = DrafterTraits(deepest=4, by_offset=True)
    why = Together(shape, 2, Greedy(), Sampling(), drafter="redrafter", traits=traits, vocab=99).misfit
    assert why == "beam_search-s8 has up to 8 levels; drafter=redrafter makes at most 4"


@pytest.mark.parametrize("name", ["width", "steps"])
def test_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        BeamSearch(**{name: 0}).at(4)
    assert str(error.value) == f"tree.{name}=0 is out of range for beam_search; expected 1 or more"
