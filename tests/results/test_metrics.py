from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.random_trees import topologies

from specdraft.results.metrics import RATIOS, Tally, add_ratios, looped_tokens, tally
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.step import Step
from specdraft.trees.topology import Topology

CHAIN = Topology.from_paths([(0,), (0, 0), (0, 0, 0)])
#      root
#    1      2
#   3 4
TREE = Topology.from_paths([(0,), (1,), (0, 0), (0, 1)])


def step(topology: Topology, accepted: list[int], bonus: bool = True, first: int = 100) -> Step:
    """A step whose emitted tokens are `first`, `first + 1`, ..."""
    tokens = list(range(first, first + len(accepted) + bonus))
    return Step(
        DraftTree(topology, [0] * len(topology)),
        accepted,
        tokens,
        cut=not bonus,
        draft_s=0.25,
        verify_s=0.5,
        other_s=0.125,
    )


def ratios(counted: Tally) -> dict[str, float]:
    names = {name for terms, below in RATIOS.values() for name in (*terms, below)}
    row: dict[str, float] = (
        add_ratios(pd.DataFrame([{name: getattr(counted, name) for name in names}])).iloc[0].to_dict()
    )
    return row


def test_counts_of_known_steps() -> None:
    steps = [step(TREE, []), step(TREE, [2]), step(TREE, [1, 4], first=200), step(TREE, [1], bonus=False)]
    counted = tally(7, steps, wall_s=10.0, plain_s=30.0)
    assert (counted.steps, counted.drafted_tokens, counted.accepted_tokens, counted.bonus_tokens) == (4, 16, 4, 3)
    assert counted.new_tokens == 1 + 4 + 3
    assert counted.lengths == {0: 1, 1: 2, 2: 1}
    # Depth 2 is reached by [1, 4] only: 2 is a leaf, and the last step was cut on 1.
    assert counted.positions == {1: [4, 3], 2: [1, 1]}
    assert counted.nodes == {(0,): [4, 2], (1,): [4, 1], (0, 0): [1, 0], (0, 1): [1, 1]}
    assert (counted.draft_s, counted.verify_s, counted.other_s) == (1.0, 2.0, 7.0)
    found = ratios(counted)
    assert found["acceptance_rate"] == 4 / 16
    assert found["acceptance_length"] == 4 / 4
    assert found["block_efficiency"] == (4 + 3) / 4
    assert found["tokens_per_s"] == 8 / 10
    assert found["speedup"] == 30 / 10
    assert found["loop_share"] == 0


@pytest.mark.parametrize(
    ("accepted", "bonus", "positions"),
    [
        ([], True, {1: [1, 0]}),
        ([1], True, {1: [1, 1], 2: [1, 0]}),
        ([1, 2, 3], True, {1: [1, 1], 2: [1, 1], 3: [1, 1]}),  # the last node is a leaf: depth 4 is not reached
        ([1], False, {1: [1, 1]}),  # the end cut the step on depth 1: depth 2 is not reached
        ([1, 2, 3], False, {1: [1, 1], 2: [1, 1], 3: [1, 1]}),
    ],
)
def test_positions_of_a_chain(accepted: list[int], bonus: bool, positions: dict[int, list[int]]) -> None:
    counted = tally(7, [step(CHAIN, accepted, bonus)], 1.0, 1.0)
    assert counted.positions == positions
    assert counted.nodes == {(0,) * depth: positions.get(depth, [0, 0]) for depth in (1, 2, 3)}


def test_without_a_step_ratios_are_empty() -> None:
    counted = tally(7, [], wall_s=2.0, plain_s=1.0)
    assert (counted.new_tokens, counted.steps, counted.lengths, counted.positions, counted.nodes) == (1, 0, {}, {}, {})
    found = ratios(counted)
    assert all(pd.isna(found[name]) for name in ("acceptance_rate", "acceptance_length", "block_efficiency"))
    assert found["tokens_per_s"] == 0.5


@pytest.mark.parametrize(
    ("tokens", "looped"),
    [
        ([], 0),
        ([1] * 5, 0),
        ([1] * 6, 1),  # the third 1111 ends at the sixth token
        ([1] * 10, 5),
        ([1, 2, 3, 4] * 2, 0),
        ([1, 2, 3, 4] * 3, 1),
        ([1, 2, 3, 4] * 4, 5),
        ([1, 2, 3, 4, 9, 1, 2, 3, 4, 8, 1, 2, 3, 4, 7], 1),
    ],
)
def test_looped_tokens(tokens: list[int], looped: int) -> None:
    assert looped_tokens(tokens) == looped


def test_loop_share_counts_the_first_token() -> None:
    counted = tally(
        1,
        [
            Step(DraftTree(CHAIN, [0] * 4), [1, 2, 3], [1, 1, 1, 1], False),
            Step(DraftTree(CHAIN, [0] * 4), [], [1], False),
        ],
        1,
        1,
    )
    assert (counted.looped_tokens, counted.new_tokens) == (1, 6)
    assert ratios(counted)["loop_share"] == pytest.approx(1 / 6)


def chain_steps(histogram: list[int]) -> list[Step]:
    """Chain steps, `histogram[a]` of them with `a` accepted tokens."""
    chain = Topology.from_paths([(0,) * depth for depth in range(1, len(histogram))])
    return [step(chain, list(range(1, a + 1))) for a, count in enumerate(histogram) for _ in range(count)]


def test_llama_cpp_counters() -> None:
    # 167 accepted in 87 drafts of 3: positions .805/.632/.483 are 70, 55 and 42 of 87.
    counted = tally(7, chain_steps([17, 15, 13, 42]), 1.0, 1.0)
    assert (counted.steps, counted.accepted_tokens) == (87, 167)
    assert round(ratios(counted)["block_efficiency"], 2) == 2.92
    assert [round(accepted / counted.steps, 3) for _, accepted in counted.positions.values()] == [0.805, 0.632, 0.483]


def test_an_interior_zero_of_a_histogram() -> None:
    counted = tally(7, chain_steps([39, 1, 0, 3]), 1.0, 1.0)
    assert [round(accepted / counted.steps, 3) for _, accepted in counted.positions.values()] == [0.093, 0.070, 0.070]
    assert counted.positions == {1: [43, 4], 2: [4, 3], 3: [3, 3]}
    assert round(ratios(counted)["block_efficiency"], 4) == 1.2326


@st.composite
def decoded(draw: st.DrawFn) -> list[Step]:
    """Steps on random trees; the last may be cut."""
    steps = []
    for _ in range(draw(st.integers(1, 6))):
        topology, node, accepted = draw(topologies()), 0, []
        while topology.children[node] and draw(st.booleans()):
            node = draw(st.sampled_from(topology.children[node]))
            accepted.append(node)
        steps.append((topology, accepted))
    cut = draw(st.booleans()) and bool(steps[-1][1])
    return [step(t, a, bonus=not (cut and i == len(steps) - 1)) for i, (t, a) in enumerate(steps)]


@given(decoded())
def test_invariants(steps: list[Step]) -> None:
    counted = tally(7, steps, 1.0, 1.0)
    assert counted.accepted_tokens <= sum(s.tree.depth for s in steps)
    assert counted.accepted_tokens <= counted.drafted_tokens
    assert counted.new_tokens == 1 + counted.accepted_tokens + counted.bonus_tokens
    assert counted.bonus_tokens == counted.steps - sum(s.cut for s in steps)
    assert sum(counted.lengths.values()) == counted.steps
    assert sum(a * n for a, n in counted.lengths.items()) == counted.accepted_tokens
    assert sum(a for _, a in counted.positions.values()) == counted.accepted_tokens
    assert sum(a for _, a in counted.nodes.values()) == counted.accepted_tokens
    rate = ratios(counted)["acceptance_rate"]
    assert pd.isna(rate) if counted.drafted_tokens == 0 else 0 <= rate <= 1
    assert (counted.positions, counted.nodes) == slow_positions(steps)


def slow_positions(steps: list[Step]) -> tuple[dict[int, list[int]], dict[tuple[int, ...], list[int]]]:
    """The contract's words, one depth and one node at a time."""
    deepest = max(s.tree.depth for s in steps)
    positions, nodes = {}, {}
    for depth in range(1, deepest + 1):
        own = [
            s for s in steps if len(s.accepted) >= depth - 1 and s.tree.topology.children[([0, *s.accepted])[depth - 1]]
        ]
        own = [s for s in own if not (s.cut and len(s.accepted) < depth)]
        if own:
            positions[depth] = [len(own), sum(len(s.accepted) >= depth for s in own)]
    reached: Counter[tuple[int, ...]] = Counter()
    accepted: Counter[tuple[int, ...]] = Counter()
    for s in steps:
        for node, path in enumerate(s.tree.topology.paths):
            parent = int(s.tree.topology.parents[node])
            if node:
                reached[path] += 0
            if node and parent in (0, *s.accepted) and not (s.cut and len(s.accepted) < len(path)):
                reached[path] += 1
                accepted[path] += node in s.accepted
    nodes = {path: [reached[path], accepted[path]] for path in reached}
    return positions, nodes
