from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import tiny_llama, topologies
from enumerating import EnumeratingSource, outcomes
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tabled import TableModel, random_logits

from specdraft.acceptance import AcceptanceRule, Block, KSeq, Membership, NoReplacement, Recursive, Rejection, registry
from specdraft.decode import Ending, decode, decode_plainly
from specdraft.draft_tree import DraftTree, Topology
from specdraft.drafters import DraftModel
from specdraft.draws import RandomSource, Source, seeded
from specdraft.metrics import Tally, tally
from specdraft.models.cached_model import CachedModel
from specdraft.records import Step
from specdraft.sampling import Sampling, standardise
from specdraft.shapes import StaticPlan
from specdraft.trace import chances as chances_module
from specdraft.trace.chances import Chances, chances
from specdraft.trace.record import Trajectory, annotate
from specdraft.trace.replay import PackedRanks, pack, replay
from specdraft.trace.replay_sampled import block_weights, node_weights, pack_chances, replay_sampled, rule_weights
from specdraft.verifier import Verifier

CLOSE = 1e-9
COUNTED = ("steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens")
PLAIN = Sampling(1.0)


def expected(weighted: Sequence[tuple[Tally, float]]) -> dict[Any, float]:
    """Every count of many tallies, by name; counts that are 0 are left out."""
    total: Counter[Any] = Counter()
    for counted, weight in weighted:
        total.update({name: weight * getattr(counted, name) for name in COUNTED})
        total.update({("length", length): weight * steps for length, steps in counted.lengths.items()})
        for kind in ("positions", "nodes"):
            for at, (reached, accepted) in getattr(counted, kind).items():
                total.update({(kind, at, "reached"): weight * reached, (kind, at, "accepted"): weight * accepted})
    return {name: count for name, count in total.items() if count > CLOSE}


# Given the chances, replay is the Markov chain that 3-replay.md describes.

Exactly = Callable[[int, int], list[float]]  # (start, tokens left) -> P(this leaf of the walk) by node


def chain_of_steps(topology: Topology, last: int, walk: Callable[[int, EnumeratingSource], int], source: EnumeratingSource) -> Tally:
    """Decode one trajectory, `walk` telling the accepted node of a step from each start."""
    at, steps, tree = 0, [], DraftTree(topology, [0] * len(topology))
    while at < last:
        path, node = [], walk(at, source)
        while node:
            path.insert(0, node)
            node = int(topology.parents[node])
        cut = at + len(path) == last
        steps.append(Step(tree, path, [0] * (len(path) + (not cut)), cut))
        at += len(path) + (not cut)
    return tally(0, steps, 0, 0)


def node_by_node(topology: Topology, last: int, pi: Callable[[int, int, int], float]) -> Callable[[int, EnumeratingSource], int]:
    """Child `rank` of a node with `count` children is taken with `pi(position, rank, count)`."""

    def walk(start: int, source: EnumeratingSource) -> int:
        node = 0
        for position in range(start + 1, last + 1):
            children = topology.children[node]
            taken = [pi(position, int(topology.ranks[child]), len(children)) for child in children]
            answer = int(source.choose(torch.tensor([[*taken, max(0.0, 1 - sum(taken))]], dtype=torch.float64)))
            if answer == len(children):
                break
            node = children[answer]
        return node

    return walk


def by_ratio(gamma: int, last: int, ratio: Sequence[float]) -> Callable[[int, EnumeratingSource], int]:
    """Block verification: P(at least a accepted) is the least product of the first 0 .. a ratios."""

    def walk(start: int, source: EnumeratingSource) -> int:
        at_least = []
        for a in range(min(gamma, last - start) + 1):
            products = [np.prod([ratio[start + 1 + j] for j in range(i)]) for i in range(a + 1)]
            at_least.append(float(min(products)))
        exactly = [one - other for one, other in pairwise([*at_least, 0.0])]
        return int(source.choose(torch.tensor([exactly], dtype=torch.float64).clamp(min=0)))

    return walk


def packed_of(lasts: Sequence[int]) -> PackedRanks:
    ranks = [np.full(last + 1, -1) for last in lasts]
    return pack(ranks, [np.arange(len(one)) for one in ranks])


def made_up(last: int, children: int, generator: np.random.Generator) -> Chances:
    """Chances of a trajectory that never was, some of them 0 or 1."""

    def pi() -> np.ndarray:
        shares = generator.dirichlet([0.5] * (children + 1), last + 1)
        shares[generator.random(last + 1) < 0.2] = np.eye(children + 1)[generator.integers(children + 1)]
        shares[0] = 0
        return shares[:, :children]

    target, draft = torch.from_numpy(generator.dirichlet([0.7] * 4, (2, last + 1)))
    table = KSeq().table(target, draft, torch.from_numpy(generator.integers(0, 4, last + 1)), children)
    ratio, rho, beta = (np.concatenate([np.zeros_like(one[:1]), one[1:]]) for one in map(np.asarray, table))
    return Chances(ratio.clip(max=1), pi()[:, :1], pi(), pi(), pi(), ratio, rho, beta)


PI_RULES = [rule() for rule in registry().values() if rule.replay in ("pi", "table")]
lasts = st.lists(st.integers(0, 4), min_size=1, max_size=3)


def closed(topology: Topology) -> Topology:
    """The same parents, every child's rank its order: what rules that draw at random are given."""
    return Topology(topology.parents.tolist())


@given(topologies(max_nodes=5), lasts, st.integers(0, 2**20), st.sampled_from(PI_RULES))
@settings(max_examples=60)
def test_replay_is_the_chain_of_steps(topology: Topology, lengths: list[int], seed: int, rule: AcceptanceRule) -> None:
    topology = Topology(range(-1, topology.num_nodes)) if rule.chain_only else closed(topology)
    generator = np.random.default_rng(seed)
    most = max(1, *map(len, topology.children))
    judged = [made_up(last, most, generator) for last in lengths]
    packed = packed_of(lengths)
    found = replay_sampled(topology, rule_weights(topology, rule, pack_chances(judged, packed.ranks.shape[1])), packed)
    for last, own, counted in zip(lengths, judged, found, strict=True):

        def pi(position: int, rank: int, count: int, own: Chances = own) -> float:
            if rule.kind == "kseq":
                table = [torch.from_numpy(np.array(own[i])) for i in (5, 6, 7)]
                return float((1 - table[2][position, count - 1]) ** rank * min(1 / table[1][position, count - 1], table[0][position]))
            return float(getattr(own, rule.kind)[position, rank])

        slow = expected(list(outcomes(lambda source, t=last, pi=pi: chain_of_steps(topology, t, node_by_node(topology, t, pi), source))))
        assert expected([(counted, 1.0)]) == pytest.approx(slow, abs=1e-9)


@given(st.integers(0, 4), lasts, st.integers(0, 2**20))
@settings(max_examples=30)
def test_replay_of_block_verification_is_the_chain_of_steps(gamma: int, lengths: list[int], seed: int) -> None:
    topology, generator = Topology(range(-1, gamma)), np.random.default_rng(seed)
    judged, packed = [made_up(last, 1, generator) for last in lengths], packed_of(lengths)
    found = replay_sampled(topology, rule_weights(topology, Block(), pack_chances(judged, packed.ranks.shape[1])), packed)
    for last, own, counted in zip(lengths, judged, found, strict=True):
        walk = by_ratio(gamma, last, own.ratio.tolist())
        slow = expected(list(outcomes(lambda source, t=last, walk=walk: chain_of_steps(topology, t, walk, source))))
        assert expected([(counted, 1.0)]) == pytest.approx(slow, abs=1e-9)


@given(topologies(max_nodes=10), st.lists(st.integers(0, 25), min_size=1, max_size=4), st.integers(0, 2**20), st.sampled_from(PI_RULES))
@settings(max_examples=60)
def test_sums(topology: Topology, lengths: list[int], seed: int, rule: AcceptanceRule) -> None:
    topology = Topology(range(-1, topology.num_nodes)) if rule.chain_only else closed(topology)
    generator, packed = np.random.default_rng(seed), packed_of(lengths)
    judged = [made_up(last, max(1, *map(len, topology.children)), generator) for last in lengths]
    for counted, last in zip(
        replay_sampled(topology, rule_weights(topology, rule, pack_chances(judged, packed.ranks.shape[1])), packed), lengths, strict=True
    ):
        assert 1 + counted.accepted_tokens + counted.bonus_tokens == pytest.approx(counted.new_tokens, abs=CLOSE)
        assert counted.new_tokens == last + 1
        assert counted.drafted_tokens == pytest.approx(counted.steps * topology.num_nodes)
        assert sum(counted.lengths.values()) == pytest.approx(counted.steps, abs=CLOSE)
        assert sum(a * steps for a, steps in counted.lengths.items()) == pytest.approx(counted.accepted_tokens, abs=CLOSE)
        assert counted.steps - 1 - CLOSE <= counted.bonus_tokens <= counted.steps + CLOSE
        assert set(counted.nodes) == (set(topology.paths[1:]) if last else set())
        for depth, (reached, accepted) in counted.positions.items():
            own = {path: both for path, both in counted.nodes.items() if len(path) == depth}
            assert accepted == pytest.approx(sum(both[1] for both in own.values()), abs=CLOSE)
            assert reached == pytest.approx(sum({path[:-1]: both[0] for path, both in own.items()}.values()), abs=CLOSE)
            at_least = [sum(steps for a, steps in counted.lengths.items() if a >= least) for least in (depth - 1, depth)]
            assert accepted == pytest.approx(at_least[1], abs=CLOSE)
            assert accepted - CLOSE <= reached <= at_least[0] + CLOSE
            assert depth > 1 or reached == pytest.approx(counted.steps)


rank_lists = st.lists(st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 5, 40]), max_size=14), min_size=1, max_size=5)


@given(topologies(), rank_lists)
@example(Topology.from_paths([(0,), (0, 1)]), [[0, 0, 1, 0], []])
@example(Topology([-1]), [[0, 1], [2]])
@settings(max_examples=100)
def test_certain_chances_are_greedy_replay(topology: Topology, listed: list[list[int]]) -> None:
    ranks = [np.array([-1, *one]) for one in listed]
    packed = pack(ranks, [np.arange(len(one)) for one in ranks])
    weights = node_weights(topology, lambda rank, count: (packed.ranks == rank).astype(float), packed.ranks.shape[1])
    for counted, greedy in zip(replay_sampled(topology, weights, packed), replay(topology, packed), strict=True):
        assert expected([(counted, 1.0)]) == expected([(greedy, 1.0)])
        assert set(counted.positions) == set(greedy.positions)
        assert counted.looped_tokens == greedy.looped_tokens


def test_no_step_without_a_second_token() -> None:
    packed = packed_of([0, 2])
    judged = pack_chances([made_up(last, 2, np.random.default_rng(0)) for last in (0, 2)], 4)
    counted, other = replay_sampled(shape := Topology([-1, 0, 0, 1]), rule_weights(shape, Recursive(), judged), packed)
    assert replace(counted, est_s=0, est_plain_s=0, wall_s=0, draft_s=0, verify_s=0, plain_s=0) == Tally(
        new_tokens=1, est_s=0, est_plain_s=0, wall_s=0, draft_s=0, verify_s=0, plain_s=0
    )
    assert other.steps > 1


def test_the_weights_of_a_block() -> None:
    weights = block_weights(Topology([-1, 0, 1, 2]), np.array([[0.0, 0.5, 3.0, 0.9, 2.0, 0.0]]))
    assert np.array(weights)[:, 0].T == pytest.approx(
        np.array(
            [
                [1, 0.5, 0.5, 0.5],  # products 0.5, 1.5, 1.35
                [1, 1, 1, 1],  # 3, 2.7, 5.4
                [1, 0.9, 0.9, 0],  # 0.9, 1.8, the end
                [1, 1, 0, 0],
                [1, 0, 0, 0],
                [1, 0, 0, 0],
            ]
        )
    )


def test_k_seq_depends_on_the_number_of_children() -> None:
    generator = np.random.default_rng(1)
    target, draft = torch.from_numpy(generator.dirichlet([0.7] * 4, (2, 7)))
    table = KSeq().table(target, draft, torch.arange(7) % 4, 4)
    zero = np.zeros((7, 4))
    own = Chances(zero[:, 0], zero[:, :1], zero, zero, zero, *map(np.asarray, table))
    judged = pack_chances([own], 7)
    for children in (1, 2, 3, 4):
        weights = rule_weights(Topology([-1] + [0] * children), KSeq(), judged)
        first = np.stack([weight[0, :-1] for weight in weights[1:]], -1)
        assert first == pytest.approx(np.asarray(table.pi(children))[1:])
    mixed = rule_weights(Topology([-1, 0, 0, 0, 1]), KSeq(), judged)  # 3 children, then 1 below the first
    assert mixed[4][0, :-2] == pytest.approx(np.asarray(table.pi(3))[1:-1, 0] * np.asarray(table.pi(1))[2:, 0])
