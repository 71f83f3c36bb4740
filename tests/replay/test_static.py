from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.random_trees import topologies
from support.recorded import NEW, recorded, small, untimed
from support.tallied import replay, replay_steps

from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair, load_pair
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.replay import static as replay_module
from specdraft.replay.static import NestedWalk, accepted_nodes, pack
from specdraft.results.metrics import Tally, looped_tokens
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.branching import Branching
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.measured import measured_tree
from specdraft.trees.shapes.paths import Paths
from specdraft.trees.shapes.published import Published, published_trees
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import RankPath, Topology

GAPS = [[1], [1, 2], [1, 2, 0], [1, 2, 3], [4], [4, 0], [4, 0, 1]]  # ranks are left out
SHAPES = (Chain(), Wide(), Kary(), Kary(k=3), Branching(), Branching(factors=[1, 3]), Beam(), Beam(width=3))
SIZED = (Paths(paths=GAPS), Published(name="medusa/mc_sim_7b_63"), Published(name="eagle/mc_sim_7b_63"))


def test_the_small_pair_meets_every_end() -> None:
    last = small().packed.last.tolist()
    assert 0 in last
    assert NEW - 1 in last
    assert any(0 < one < NEW - 1 for one in last)
    assert len(set(small().packed.ranks[small().packed.ranks >= 0].tolist())) > 4


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.label)
@pytest.mark.parametrize("budget", [1, 2, 5, 12])
def test_replay_is_live_to_the_integer(shape: Any, budget: int) -> None:
    counted = small().check(shape.at(budget).topology)
    assert sum(t.accepted_tokens for t in counted) > 0


@pytest.mark.parametrize("shape", SIZED, ids=lambda shape: shape.label)
def test_replay_is_live_for_trees_with_a_size_of_their_own(shape: Any) -> None:
    small().check(shape.at(1).topology)


@given(topologies(max_nodes=10).filter(lambda topology: topology.num_nodes > 0))
@hypothesis_settings(max_examples=8)
def test_replay_is_live_for_random_trees(topology: Topology) -> None:
    small().check(Topology.from_paths(topology.paths[1:]))


def test_some_texts_end_on_a_draft_token_and_some_on_a_bonus() -> None:
    counted = [t for n in range(1, 6) for t in replay(Chain().at(n).topology, small().packed) if t.steps]
    assert {t.steps - t.bonus_tokens for t in counted} == {0, 1}


def test_a_fault_in_the_ranks_is_seen() -> None:
    one, topology = small(), Kary(k=3).at(12).topology
    ranks = one.packed.ranks
    off = np.where(ranks >= 0, ranks + 1, ranks)
    shifted = np.concatenate([ranks[:, :1], ranks[:, 2:], ranks[:, :1]], 1)
    for wrong in (off, shifted):
        with pytest.raises(AssertionError):
            one._replace(packed=one.packed._replace(ranks=wrong)).check(topology)


@pytest.mark.parametrize("fault", ["a rank off", "a position shifted", "the bonus forgotten", "the bonus not counted"])
def test_a_fault_in_replay_is_seen(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    class Wrong(NestedWalk):
        def __init__(self, topology: Topology, ranks: np.ndarray) -> None:
            if fault == "a rank off":
                ranks = np.where(ranks > 0, ranks - 1, ranks)
            if fault == "a position shifted":
                ranks = np.concatenate([ranks[:, :1], ranks[:, 2:], ranks[:, :1]], 1)
            super().__init__(topology, ranks)

        def accepted(self, smaller: Topology) -> tuple[np.ndarray, np.ndarray]:
            node, depth = super().accepted(smaller)
            # the next step starts on the bonus token's place
            return node, np.maximum(depth - (fault == "the bonus forgotten"), 0)

    def replay_wrongly(topology: Topology, ranks: PackedRanks) -> list[Tally]:
        return [replace(counted, bonus_tokens=0) for counted in replay(topology, ranks)]

    trees = [Kary(k=3).at(12).topology, Chain().at(5).topology]
    for topology in trees:
        small().check(topology)
    if fault == "the bonus not counted":
        monkeypatch.setattr("support.recorded.replay", replay_wrongly)
    else:
        monkeypatch.setattr(replay_module, "NestedWalk", Wrong)
    for topology in trees:
        with pytest.raises(AssertionError):
            small().check(topology)


def test_the_tiny_pair(tiny_pair: Pair) -> None:
    prompts = [tiny_pair.encode(text) for text in ("Once upon a time", "x", "def f(x): return")]
    one = recorded(tiny_pair.target, tiny_pair.drafter.model, prompts, Ending(16, tiny_pair.eos_ids))
    for shape in (Chain().at(5), Kary().at(14), Beam(width=3).at(8), Paths(paths=GAPS).at(1)):
        one.check(shape.topology)


class Slow(NamedTuple):
    """What 3-replay.md says of one trajectory, in plain Python."""

    steps: list[tuple[RankPath, bool]]  # the accepted path of each step, and whether it reached the end

    @classmethod
    def of(cls, paths: set[RankPath], ranks: list[int]) -> Slow:
        """`ranks[t]` is the rank of the token at t; position 0 is the prefill's."""
        last, at, steps = len(ranks) - 1, 0, []
        while at < last:
            path: RankPath = ()
            while at + len(path) < last and (*path, ranks[at + len(path) + 1]) in paths:
                path = (*path, ranks[at + len(path) + 1])
            steps.append((path, at + len(path) == last))
            at += len(path) + 1
        return cls(steps)

    def check(self, counted: Tally, paths: set[RankPath], last: int) -> None:
        lengths = [len(path) for path, _ in self.steps]
        bonus = sum(not cut for _, cut in self.steps)
        assert (counted.steps, counted.accepted_tokens, counted.bonus_tokens) == (len(self.steps), sum(lengths), bonus)
        assert (counted.drafted_tokens, counted.new_tokens) == (len(self.steps) * len(paths), last + 1)
        assert counted.new_tokens == 1 + counted.accepted_tokens + counted.bonus_tokens
        assert counted.lengths == Counter(lengths)
        assert sum(counted.lengths.values()) == counted.steps
        positions: dict[int, list[int]] = {}
        nodes = {path: [0, 0] for path in paths} if self.steps else {}
        for accepted, cut in self.steps:
            for parent in (accepted[:d] for d in range(len(accepted) + (not cut))):
                children = [path for path in paths if path[:-1] == parent]
                for position in [positions.setdefault(len(parent) + 1, [0, 0])] if children else []:
                    position[0] += 1
                    position[1] += len(accepted) > len(parent)
                for child in children:
                    nodes[child][0] += 1
                    nodes[child][1] += accepted[: len(child)] == child
        assert counted.positions == positions
        assert counted.nodes == nodes
        for depth, (_, accepted_there) in positions.items():
            assert accepted_there == sum(n for length, n in counted.lengths.items() if length >= depth)


@given(topologies(max_nodes=8), st.integers(0, 8), st.randoms())
@hypothesis_settings(max_examples=10)
def test_one_more_node_never_lowers_what_a_recorded_start_accepts(topology: Topology, rank: int, pick: Any) -> None:
    parent = pick.choice(topology.paths)
    larger = Topology.from_paths([*topology.paths[1:], *({(*parent, rank)} - set(topology.paths))])
    assert (accepted_nodes(larger, small().packed.ranks)[1] >= accepted_nodes(topology, small().packed.ranks)[1]).all()


@given(topologies().filter(lambda topology: topology.num_nodes > 0))
@hypothesis_settings(max_examples=30)
def test_lengths_and_positions_fit_the_steps(topology: Topology) -> None:
    for counted in replay(topology, small().packed):
        lengths = counted.lengths
        assert sum(lengths.values()) == counted.steps
        assert sum(length * steps for length, steps in lengths.items()) == counted.accepted_tokens
        for depth, (reached, accepted) in counted.positions.items():
            assert accepted == sum(steps for length, steps in lengths.items() if length >= depth)
            before = sum(steps for length, steps in lengths.items() if length >= depth - 1)
            assert accepted <= reached <= before
            assert depth > 1 or reached == counted.steps
        assert set(range(1, max(lengths, default=0) + 1)) <= set(counted.positions)


rank_lists = st.lists(st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 5, 40]), max_size=14), min_size=1, max_size=5)


def packed(listed: Sequence[Sequence[int]]) -> PackedRanks:
    """Each list: the ranks from position 1 on."""
    ranks = [np.array([-1, *one], dtype=np.int32) for one in listed]
    return pack(ranks, [np.arange(len(one)) for one in ranks])


@given(topologies(), rank_lists)
@example(Topology.from_paths([(0,), (0, 1)]), [[0, 0, 1, 0], []])
@example(Topology([-1]), [[0, 1], [2]])
@example(Chain().at(20).topology, [[0] * 14, [0] * 3])
@hypothesis_settings(max_examples=300)
def test_replay_is_what_the_mathematics_says(topology: Topology, listed: list[list[int]]) -> None:
    paths, ranks = set(topology.paths[1:]), packed(listed)
    for one, counted, steps in zip(listed, replay(topology, ranks), replay_steps(topology, ranks), strict=True):
        slow = Slow.of(paths, [-1, *one])
        slow.check(counted, paths, len(one))
        assert steps == [[i, len(paths), len(path), 1 - cut, int(cut)] for i, (path, cut) in enumerate(slow.steps)]


@given(topologies(max_nodes=8), rank_lists, st.lists(st.integers(0, 3), min_size=1, max_size=4), st.randoms())
def test_one_more_node_never_lowers_what_a_start_accepts(
    topology: Topology, listed: list[list[int]], ranks: list[int], pick: Any
) -> None:
    parent = pick.choice(topology.paths)
    new = next(((*parent, rank) for rank in [*ranks, 99] if (*parent, rank) not in topology.paths), None)
    assert new is not None
    larger = Topology.from_paths([*topology.paths[1:], new])
    given_ranks = packed(listed).ranks
    assert (accepted_nodes(larger, given_ranks)[1] >= accepted_nodes(topology, given_ranks)[1]).all()


def test_one_more_node_can_add_a_step() -> None:
    ranks = packed([[0, 0, 0, 1, 0]])
    two, three = ([(0,), (0, 1)], [(0,), (0, 1), (0, 0)])
    assert [replay(Topology.from_paths(paths), ranks)[0].steps for paths in (two, three)] == [2, 3]


def test_no_step_without_a_second_token() -> None:
    (counted,) = replay(Kary().at(6).topology, packed([[]]))
    assert untimed(counted) == untimed(Tally(new_tokens=1))
    assert str(counted.est_s) == str(counted.wall_s) == str(nan)


def test_a_draft_that_is_always_right_and_one_that_is_never() -> None:
    ranks = packed([[0] * 10, [7] * 10])
    right, wrong = replay(Chain().at(4).topology, ranks)
    assert (right.steps, right.accepted_tokens, right.bonus_tokens, right.lengths) == (2, 8, 2, Counter({4: 2}))
    assert (wrong.steps, wrong.accepted_tokens, wrong.bonus_tokens, wrong.lengths) == (10, 0, 10, Counter({0: 10}))
    (cut,) = replay(Chain().at(4).topology, packed([[0] * 9]))
    assert (cut.steps, cut.accepted_tokens, cut.bonus_tokens, cut.lengths) == (2, 8, 1, Counter({4: 2}))


def test_counts_are_plain_integers() -> None:
    for counted in replay(Kary().at(6).topology, packed([[0, 1, 0], [0] * 5])):
        listed = [
            counted.steps,
            counted.drafted_tokens,
            counted.accepted_tokens,
            counted.bonus_tokens,
            counted.new_tokens,
        ]
        listed += [counted.looped_tokens, *counted.lengths, *counted.lengths.values()]
        listed += [n for both in (*counted.positions.values(), *counted.nodes.values()) for n in both]
        assert {type(n) for n in listed} == {int}


def test_packing() -> None:
    texts = [np.array([5, 5, 5, 5, 5, 5, 5]), np.array([1]), np.array([1, 2])]
    one = pack([np.array([9, 0, 3, 1, 0, 0, 0]), np.array([-1]), np.array([-1, 7])], texts)
    assert one.ranks.tolist() == [[-1, 0, 3, 1, 0, 0, 0, -1], [-1] * 8, [-1, 7, -1, -1, -1, -1, -1, -1]]
    assert one.last.tolist() == [6, 0, 1]
    assert one.looped.tolist() == [looped_tokens(text.tolist()) for text in texts] == [2, 0, 0]
    assert [t.looped_tokens for t in replay(Chain().at(2).topology, one)] == [2, 0, 0]


def test_prompts_do_not_disturb_each_other() -> None:
    listed, topology = [[0] * 9, [], [1, 0, 0, 2], [0, 0, 1]], Kary(k=3).at(10).topology
    together = replay(topology, packed(listed))
    alone = [replay(topology, packed([one]))[0] for one in listed]
    assert list(map(untimed, together)) == list(map(untimed, alone))


@pytest.mark.slow
@pytest.mark.parametrize("draft_layers", [1, 2])
def test_replay_is_live_for_many_trees(draft_layers: int) -> None:
    for name in published_trees():
        small(draft_layers, 20).check(Published(name=name).at(1).topology)
    for shape in SHAPES:
        for budget in (3, 8, 32):
            small(draft_layers, 20).check(shape.at(budget).topology)


def many_trees() -> list[Topology]:
    """20 trees: every shape, published ones, and random ones that skip ranks."""
    shapes = [shape.at(budget).topology for shape in SHAPES for budget in (4, 11)][:14]
    rng, grown = np.random.default_rng(0), [(0,)]
    trees = [*shapes, *(shape.at(1).topology for shape in SIZED)]
    for _ in range(3):
        paths: list[RankPath] = [*grown]
        while len(paths) < 12:
            path = (*([(), *paths][rng.integers(len(paths) + 1)]), int(rng.integers(4)))
            paths += [path] if path not in paths else []
        trees.append(Topology.from_paths(paths))
    return trees


@pytest.mark.slow
@pytest.mark.parametrize(("name", "prompts"), [("zoo", 20), ("zoo-distilled", 20), ("zoo-tiny", 3)])
def test_the_bundled_pairs(name: str, prompts: int) -> None:
    pair, texts = load_pair(name), [prompt.text for prompt in load_prompts(PromptSpec(limit=prompts))]
    one = recorded(pair.target, pair.drafter.model, [pair.encode(text) for text in texts], Ending(32, pair.eos_ids))
    trees = many_trees()
    assert len(trees) == 20
    for topology in trees:
        one.check(topology)


@given(topologies(max_nodes=8), st.integers(1, 3), st.integers(0, 10**6))
def test_ranks_that_depend_on_the_distance_from_the_root(topology: Topology, offsets: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranks = np.concatenate([np.full((1, offsets), -1), rng.integers(0, 3, (12, offsets))]).astype(np.int32)
    one = pack([ranks], [np.arange(13)])
    depth = accepted_nodes(topology, one.ranks)[1][0]
    paths = set(topology.paths)
    for start in range(12):
        path: RankPath = ()
        while (
            start + len(path) < 12
            and len(path) < offsets  # below that nothing is proposed
            and (step := (*path, int(ranks[start + len(path) + 1, len(path)]))) in paths
        ):
            path = step
        assert depth[start] == len(path)
    same = pack([np.repeat(ranks[:, :1], 8, 1)], [np.arange(13)])  # as deep as any of these trees
    plain = pack([ranks[:, 0]], [np.arange(13)])
    assert list(map(untimed, replay(topology, same))) == list(map(untimed, replay(topology, plain)))
    assert measured_tree(same, 5, 4, 3)[1] == measured_tree(plain, 5, 4, 3)[1]


@given(topologies(max_nodes=10), st.integers(0, 10**6))
@hypothesis_settings(max_examples=40)
def test_one_walk_serves_every_tree_that_begins_its_own(topology: Topology, seed: int) -> None:
    ranks = packed(np.random.default_rng(seed).integers(0, 4, (3, 12)).tolist()).ranks
    walk = NestedWalk(topology, ranks)
    for size in range(1, len(topology) + 1):
        smaller = Topology(topology.parents[:size], topology.ranks[:size])
        assert walk.holds(smaller)
        for together, alone in zip(walk.accepted(smaller), accepted_nodes(smaller, ranks), strict=True):
            assert together.tolist() == alone.tolist()


def test_a_tree_that_is_no_beginning_is_walked_itself() -> None:
    walk = NestedWalk(Kary().at(6).topology, packed([[0, 1]]).ranks)
    assert walk.holds(Kary().at(3).topology)
    assert not walk.holds(Kary().at(7).topology)
    assert not walk.holds(Chain().at(3).topology)
    assert not walk.holds(Topology([-1, 0, 0], [0, 0, 2]))
