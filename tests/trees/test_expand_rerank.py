"""EAGLE-2's trees: the definition in plain Python, and what SGLang calls their settings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.growing import grown, said

from specdraft.errors import ConfigError
from specdraft.trees.beam_growth import BeamGrowth
from specdraft.trees.shapes.expand_rerank import ExpandRerank
from specdraft.trees.topology import RankPath


def by_hand(seed: int, budget: int, top_k: int, steps: int) -> list[RankPath]:
    """The definition, one tree: every candidate, then the best of them."""
    score: dict[RankPath, float] = {(): 0.0}
    beam: list[RankPath] = [()]
    for _ in range(steps):
        level = {
            (*path, rank): score[path] + float(value)
            for path in beam
            for rank, value in enumerate(said(seed, path)[:top_k])
        }
        score |= level
        beam = sorted(level, key=lambda path: (-score[path], path))[:top_k]
    return sorted((path for path in score if path), key=lambda path: (-score[path], len(path), path))[:budget]


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
    st.integers(1, 30),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
)
def test_trees_are_the_definitions(seeds: list[int], budget: int, top_k: int, steps: int, parts: bool) -> None:
    """Whole levels or some nodes at a time, one root or several; smaller budgets are the beginning of larger ones."""
    expected = [by_hand(seed, budget, top_k, steps) for seed in seeds]
    growth = BeamGrowth(len(seeds), budget, min(budget, steps), top_k, top_k)
    assert grown(said, seeds, growth, np.random.default_rng(budget) if parts else None) == expected
    assert by_hand(seeds[0], max(1, budget // 2), top_k, steps) == expected[0][: max(1, budget // 2)]


def test_a_beam_misses_nodes_that_best_first_has() -> None:
    assert any(by_hand(seed, 12, 2, 5) != by_hand(seed, 12, 6, 5) for seed in range(9))


def test_sglang_has_these_settings(run: Any) -> None:
    shown = run("trees", "show", "expand_rerank", "budget=59", "--format", "sglang")
    assert json.loads(shown.out) == {
        "speculative_num_steps": 8,
        "speculative_eagle_topk": 10,
        "speculative_num_draft_tokens": 60,
    }
    few = run("trees", "show", "expand_rerank", "budget=9", "tree.top_k=2", "tree.steps=2", "--format", "sglang")
    assert few.code == 2 and "budget=9 is more than the 6 candidates of expand_rerank-tk2-s2" in few.err


@pytest.mark.parametrize("name", ["top_k", "steps"])
def test_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        ExpandRerank(**{name: 0}).at(4)
    assert str(error.value) == f"tree.{name}=0 is out of range for expand_rerank; expected 1 or more"
