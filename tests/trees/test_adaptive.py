from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.growing import grown

from specdraft.errors import ConfigError
from specdraft.trees.adaptive_growth import AdaptiveGrowth
from specdraft.trees.shapes.adaptive import Adaptive
from specdraft.trees.topology import RankPath

VOCAB = 5
Law = dict[RankPath, np.ndarray]


def said(seed: int, path: RankPath) -> np.ndarray:
    """Logarithms of the probabilities of a node's children, best first; some are equal."""
    rng = np.random.default_rng([seed, *path])
    weights = np.sort(rng.integers(1, 4, VOCAB) ** rng.integers(1, 4))[::-1]
    return np.asarray(np.log(weights / weights.sum()))


def by_hand(seed: int, budget: int, depth: int, per_level: int, margin: float) -> list[RankPath]:
    """The definition, one tree, in plain Python."""
    score: dict[RankPath, float] = {(): 0.0}
    tree: list[RankPath] = []
    level: list[RankPath] = [()]
    while level and len(tree) < budget and len(level[0]) < depth:
        leaves = [path for path in score if not any(other[:-1] == path for other in tree)]
        best = max(score[path] for path in leaves)
        expanded = [path for path in level if score[path] >= best - margin]
        children = {
            (*path, r): score[path] + float(value) for path in expanded for r, value in enumerate(said(seed, path))
        }
        least = max(children.values(), default=0.0) - margin
        order = sorted((path for path in children if children[path] >= least), key=lambda path: (-children[path], path))
        level = order[: min(per_level, budget - len(tree))]
        score |= {path: children[path] for path in level}
        tree += level
    return tree


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
    st.integers(1, 30),
    st.integers(1, 5),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0]),
    st.booleans(),
)
def test_trees_are_the_definitions(
    seeds: list[int], budget: int, depth: int, per_level: int, margin: float, parts: bool
) -> None:
    """Whole levels or some nodes at a time, one root or several; smaller budgets are the beginning of larger ones."""
    expected = [by_hand(seed, budget, depth, per_level, margin) for seed in seeds]
    growth = AdaptiveGrowth(len(seeds), budget, depth, VOCAB, per_level, margin)
    assert grown(said, seeds, growth, np.random.default_rng(budget) if parts else None) == expected
    assert by_hand(seeds[0], max(1, budget // 2), depth, per_level, margin) == expected[0][: max(1, budget // 2)]


def test_a_certain_drafter_has_a_chain_and_an_unsure_one_a_bush() -> None:
    by_size = [len(by_hand(seed, 100, 4, 6, 1.0)) for seed in range(40)]
    assert min(by_size) <= 4
    assert max(by_size) > 16


def test_no_level_is_begun_when_the_time_is_over() -> None:
    assert grown(said, [1], AdaptiveGrowth(1, 20, 5, VOCAB, 4, 2.0, until=-inf)) == [by_hand(1, 20, 1, 4, 2.0)]


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (Adaptive(margin=-1.0), "tree.margin=-1.0 is out of range for adaptive; expected 0 or more nats"),
        (Adaptive(margin=inf), "tree.margin=inf is out of range for adaptive; expected 0 or more nats"),
        (
            Adaptive(max_nodes_per_level=0),
            "tree.max_nodes_per_level=0 is out of range for adaptive; expected 1 or more",
        ),
        (Adaptive(max_depth=0), "tree.max_depth=0 is out of range for adaptive; expected 1 or more"),
        (Adaptive(max_step_s=0.0), "tree.max_step_s=0.0 is out of range; expected seconds, above 0"),
    ],
)
def test_out_of_range(shape: Adaptive, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        shape.at(4)
    assert str(error.value) == why
