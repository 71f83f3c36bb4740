from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.tallied import replay

from specdraft.replay.fit import Fits, fit_on_all, resolve
from specdraft.replay.folds import FOLDS, folds
from specdraft.replay.static import accepted_nodes, pack
from specdraft.trees.optimal import best_tree, path_weights
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.fitted import FittedShape
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.measured import Hindsight, Measured, measured_tree
from specdraft.trees.shapes.sequoia import Sequoia, rank_shares
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import RankPath, Topology

CATEGORIES = ["story"] * 7 + ["code"] * 4 + ["maths"] + ["chat"] * 3


def packed(listed: Sequence[Sequence[int]]) -> PackedRanks:
    """Each list: the ranks from position 1 on."""
    ranks = [np.array([-1, *one], dtype=np.int32) for one in listed]
    return pack(ranks, [np.arange(len(one)) for one in ranks])


def random_packed(
    seed: int, prompts: int = 6, longest: int = 12, probs: Sequence[float] = (0.6, 0.2, 0.1, 0.1)
) -> PackedRanks:
    rng = np.random.default_rng(seed)
    return packed([rng.choice(len(probs), rng.integers(0, longest), p=probs).tolist() for _ in range(prompts)])


def weight(path: RankPath, listed: Sequence[Sequence[int]]) -> float:
    """The share of starts that are followed by exactly these ranks."""
    starts = [(one, t) for one in listed for t in range(len(one))]
    return sum(tuple(one[t : t + len(path)]) == path for one, t in starts) / max(len(starts), 1)


def every_tree(nodes: int, ranks: int, levels: int) -> Iterator[frozenset[RankPath]]:
    """All trees of so many nodes, whether or not lower-ranked siblings are there."""
    trees: set[frozenset[RankPath]] = {frozenset()}
    for _ in range(nodes):
        trees = {
            tree | {(*parent, rank)}
            for tree in trees
            for parent in [(), *tree]
            for rank in range(ranks)
            if (*parent, rank) not in tree and len(parent) < levels
        }
    yield from trees


class TestFolds:
    @pytest.mark.parametrize("seed", range(6))
    def test_halves_within_categories(self, seed: int) -> None:
        fold = folds(CATEGORIES, seed)
        assert set(fold.tolist()) == set(range(FOLDS)) == {0, 1}
        for category in set(CATEGORIES):
            own = [f for f, c in zip(fold.tolist(), CATEGORIES, strict=True) if c == category]
            assert abs(own.count(0) - own.count(1)) <= 1
        assert abs(int((fold == 0).sum()) - int((fold == 1).sum())) <= 1

    def test_seeded(self) -> None:
        made = [tuple(folds(CATEGORIES, seed).tolist()) for seed in range(8)]
        assert made == [tuple(folds(CATEGORIES, seed).tolist()) for seed in range(8)]
        assert len(set(made)) > 4

    def test_two_prompts_are_two_folds(self) -> None:
        for categories, seed in product((["a", "a"], ["a", "b"]), range(4)):
            assert sorted(folds(categories, seed).tolist()) == [0, 1]


class TestMeasuredTree:
    @given(
        st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=4),
        st.integers(1, 4),
        st.integers(1, 3),
        st.integers(1, 3),
    )
    @hypothesis_settings(max_examples=120)
    def test_no_tree_is_better(self, listed: list[list[int]], budget: int, max_depth: int, max_children: int) -> None:
        one = packed(listed)
        topology, value = measured_tree(one, budget, max_depth, max_children)
        trees = list(every_tree(budget, max_children, max_depth))
        assert topology.num_nodes == (budget if trees else sum(max_children**d for d in range(1, max_depth + 1)))
        assert topology.depth <= max_depth
        assert topology.ranks.max() < max_children
        assert value == pytest.approx(sum(weight(path, listed) for path in topology.paths[1:]))
        assert value == pytest.approx(
            max((sum(weight(path, listed) for path in tree) for tree in trees), default=value)
        )

    @pytest.mark.parametrize("seed", range(5))
    def test_its_weight_is_the_mean_of_what_is_accepted(self, seed: int) -> None:
        one = random_packed(seed)
        topology, value = measured_tree(one, 12, 32, 16)
        depth = accepted_nodes(topology, one.ranks)[1]
        starts = [depth[p, t] for p, last in enumerate(one.last) for t in range(last)]
        assert value == pytest.approx(np.mean(starts))

    def test_equals_go_to_the_shallower_then_to_the_lower_ranks(self) -> None:
        one = packed([[0, 0, 0, 0]])  # weights 4/4, 3/4, 2/4, 1/4 down the chain, 0 elsewhere
        made = [measured_tree(one, budget, 9, 3)[0].paths[1:] for budget in (4, 5, 6, 7)]
        chain = [(0,), (0, 0), (0, 0, 0), (0, 0, 0, 0)]
        assert [set(paths) for paths in made] == [
            {*chain, *rest} for rest in ([], [(1,)], [(1,), (2,)], [(1,), (2,), (0, 1)])
        ]
        tie = packed([[0, 1], [1, 0]])  # (0,) and (1,) 2/4 each, (0, 1) and (1, 0) 1/4 each
        assert [set(measured_tree(tie, n, 9, 2)[0].paths[1:]) for n in (1, 2, 3)] == [
            {(0,)},
            {(0,), (1,)},
            {(0,), (1,), (0, 1)},
        ]

    def test_a_rank_is_free_of_its_lower_siblings(self) -> None:
        one = packed([[2, 2, 2, 0, 2, 2]])
        topology, _ = measured_tree(one, 3, 9, 5)
        assert set(topology.paths[1:]) == {(2,), (2, 2), (2, 2, 2)} or set(topology.paths[1:]) == {(2,), (2, 2), (0,)}
        assert not topology.sibling_closed
        assert measured_tree(one, 1, 9, 2)[0].paths[1:] == [(0,)]  # rank 2 is beyond the limit

    def test_nothing_recorded_still_fills_the_budget(self) -> None:
        for listed in ([[]], [[], []], [[60, 60]]):
            one = packed(listed)
            topology, value = measured_tree(one, 9, 2, 3)
            assert (topology.num_nodes, value) == (9, 0)
            assert measured_tree(one, 99, 2, 3)[0].num_nodes == 12  # all that fit

    def test_large_budgets(self) -> None:
        one = random_packed(1, prompts=20, longest=60)
        assert measured_tree(one, 500, 32, 16)[0].num_nodes == 500


def test_rank_shares() -> None:
    one = packed([[0, 0, 3, 1], [], [0, 70, 2]])
    np.testing.assert_allclose(rank_shares(one, 4), np.array([3, 1, 1, 1]) / 7)
    np.testing.assert_allclose(rank_shares(one, 2), np.array([3, 1]) / 7)
    np.testing.assert_allclose(rank_shares(packed([[0, -1, 1, -1, 0]]), 2), np.array([2, 1]) / 5)  # some not proposed
    empty = packed([[]])
    assert rank_shares(empty, 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_sequoia_is_the_best_tree_for_the_shares(seed: int) -> None:
    one = random_packed(seed, prompts=10, longest=30)
    shape = Sequoia(max_depth=3, max_children=3)
    topology, shares = shape.fit(11, one), rank_shares(one, 3)
    best = best_tree(shares, 11, max_depth=3, max_children=3)
    assert topology.sibling_closed
    assert sum(path_weights(topology.paths[1:], shares).values()) == pytest.approx(best.expected_accepted)
    assert topology.depth <= 3
    assert max(map(len, topology.children)) <= 3


def by_offset(*texts: list[list[int]]) -> PackedRanks:
    """Ranks of heads: each text has a row for each position after the first, a number for each distance."""
    ranks = [np.array([[-1] * len(text[0]), *text]) for text in texts]
    return pack(ranks, [np.arange(len(text)) for text in ranks])


class TestRanksByOffset:
    """Of a head that is right wherever its token stands, and one that is right at its second choice."""

    ONE = by_offset([[0, -1], [0, 1], [0, 1], [0, 1]])

    def test_shares(self) -> None:
        assert rank_shares(self.ONE, 3, 1).tolist() == [1, 0, 0]
        assert rank_shares(self.ONE, 3, 2).tolist() == [0, 1, 0]  # of the three starts with two tokens after them

    @pytest.mark.parametrize("shape", [Measured(), Sequoia()])
    def test_a_tree_follows_each_depths_own_ranks(self, shape: FittedShape) -> None:
        assert (0, 1) in shape.fit(3, self.ONE).paths
        assert shape.fit(9, self.ONE).depth == 2  # below that there is no proposal, whatever the room

    def test_room_is_what_the_levels_leave(self) -> None:
        for shape in (Measured(max_children=2), Sequoia(max_children=2)):
            assert shape.fit(20, self.ONE).num_nodes == 6


class TestFittedTrees:
    FOLD = np.array([0, 1, 0, 1, 1, 0])
    SHAPES = (Measured(), Sequoia(), Measured(max_depth=2, max_children=3))

    def by_prompt(self, shape: FittedShape, one: PackedRanks, budget: int = 8) -> list[Topology]:
        used: dict[int, Topology] = {}
        for plan, members in resolve(shape, budget, one, self.FOLD):
            assert plan.topology is not None
            for member in members.tolist():
                assert member not in used
                used[member] = plan.topology
        assert sorted(used) == list(range(len(self.FOLD)))
        return [used[prompt] for prompt in sorted(used)]

    @pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
    def test_no_prompt_is_scored_with_a_tree_fitted_on_it(self, shape: FittedShape) -> None:
        one, changes = random_packed(4, longest=20), 0
        before = self.by_prompt(shape, one)
        for prompt, fold in enumerate(self.FOLD):
            ranks, last = one.ranks.copy(), one.last.copy()
            last[prompt] = ranks.shape[1] - 2
            ranks[prompt, 1:-1] = np.arange(ranks.shape[1] - 2) % 3 + 1
            after = self.by_prompt(shape, PackedRanks(ranks, last, one.looped))
            for other, other_fold in enumerate(self.FOLD):
                if fold == other_fold:
                    assert after[other] == before[other]
                else:
                    changes += after[other] != before[other]
        assert changes > 0

    @pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
    def test_each_half_has_the_tree_of_the_other(self, shape: FittedShape) -> None:
        one = random_packed(4, longest=20)
        for prompt, topology in enumerate(self.by_prompt(shape, one)):
            others = self.FOLD[prompt] != self.FOLD
            assert topology == shape.fit(8, one.of(others))

    def test_hindsight_sees_every_prompt(self) -> None:
        one = random_packed(4)
        ((plan, members),) = resolve(Hindsight(), 8, one, self.FOLD)
        assert members.tolist() == list(range(6))
        assert plan.topology == measured_tree(one, 8, 32, 16)[0] == fit_on_all(Measured(), 8, one).topology

    @pytest.mark.parametrize("seed", range(8))
    def test_hindsight_weighs_no_less_than_any_tree_of_its_size(self, seed: int) -> None:
        one = random_packed(seed, prompts=8, longest=30)

        def mean_accepted(topology: Topology) -> float:
            depth = accepted_nodes(topology, one.ranks)[1]
            return float(np.mean([depth[p, t] for p, last in enumerate(one.last) for t in range(last)]))

        for budget in (1, 3, 8, 20):
            best = mean_accepted(Hindsight().fit(budget, one))
            others: list[Any] = [shape.fit(budget, one) for shape in (Sequoia(), Measured())]
            others += [Measured().fit(budget, one.of(half)) for half in (self.FOLD == 0).nonzero()]
            others += [shape.at(budget).topology for shape in (Chain(), Wide(), Kary(), Kary(k=3))]
            assert all(topology.num_nodes == budget for topology in others)
            assert best >= max(map(mean_accepted, others)) - 1e-12


def test_a_fitted_tree_has_the_size_and_limits_of_its_plan() -> None:
    one = random_packed(2, prompts=12, longest=40)
    for shape, budget in product((Measured(max_depth=3), Sequoia(max_children=2), Hindsight()), (1, 5, 13)):
        limits, topology = shape.limits(budget), shape.fit(budget, one)
        assert topology.num_nodes == limits.nodes == budget
        assert topology.depth <= limits.depth <= shape.max_depth
        assert int(topology.ranks.max()) < limits.width == shape.max_children
        assert all(counted.drafted_tokens == counted.steps * budget for counted in replay(topology, one))


@pytest.mark.parametrize("shape", [Measured(), Measured(max_children=2), Hindsight(), Sequoia()], ids=str)
def test_budgets_share_their_work_in_any_order(shape: FittedShape) -> None:
    one, fold = random_packed(4, len(CATEGORIES), 20), folds(CATEGORIES, 0)
    fits = Fits(one, fold)
    every = np.arange(len(fold))
    for budget in (5, 12, 3, 12, 9):
        on = [every] if shape.in_sample else [every[fold != number] for number in range(FOLDS)]
        for part, fitted_on in zip(fits.resolve(shape, budget), on, strict=True):
            assert part.plan.topology.paths == fit_on_all(shape, budget, one.of(fitted_on)).topology.paths
            assert set(part.prompts.tolist()) == set(every) - (set() if shape.in_sample else set(fitted_on))
            assert part.plan.nodes == budget


def test_shapes_do_not_share_their_trees() -> None:
    one, fold = random_packed(4, len(CATEGORIES), 20), folds(CATEGORIES, 0)
    fits = Fits(one, fold)
    deep, flat = (fits.resolve(Measured(max_depth=depth), 6)[0].plan.depth for depth in (32, 1))
    assert (deep > 1, flat) == (True, 1)
