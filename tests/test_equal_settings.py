"""Every shape and every rule has a setting at which it is another one: one table each, held by one test."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from support.recorded import Recorded, small

from specdraft.acceptance import (
    AcceptanceRule,
    Block,
    Greedy,
    KSeq,
    Membership,
    NoReplacement,
    Recursive,
    Rejection,
    TopK,
    Traversal,
    Typical,
)
from specdraft.acceptance import registry as rules
from specdraft.decoding.decode import decode
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.losslessness.enumeration import PLAIN, Step, World
from specdraft.losslessness.enumeration import shape as complete
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes import Plan, Shape, StaticPlan, registry
from specdraft.trees.shapes.adaptive import Adaptive
from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.beam_search import BeamSearch
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.branching import Branching
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.expand_rerank import ExpandRerank
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.measured import Hindsight, Measured
from specdraft.trees.shapes.paths import Paths
from specdraft.trees.shapes.published import Published, published_trees
from specdraft.trees.shapes.sequoia import Sequoia
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import Topology

BUDGET = 4
MEDUSA = [list(path) for path in published_trees()["medusa/mc_sim_7b_63"]["paths"]]

SHAPES: list[tuple[Shape, Shape, int]] = [
    (Chain(), Paths(paths=[[0] * depth for depth in range(1, BUDGET + 1)]), BUDGET),
    (Kary(k=1), Chain(), BUDGET),
    (Kary(k=BUDGET), Wide(), BUDGET),
    (Wide(), Chain(), 1),
    (Branching(factors=[1]), Chain(), BUDGET),
    (Branching(factors=[3]), Kary(k=3), 9),
    (Branching(factors=[2, 1]), Beam(width=2), 6),
    (Beam(width=1), Chain(), BUDGET),
    (Beam(width=BUDGET), Wide(), BUDGET),
    (Paths(paths=[[0], [1], [0, 0], [0, 1], [1, 0], [1, 1]]), Kary(), 6),
    (Published(name="medusa/mc_sim_7b_63"), Paths(paths=MEDUSA), 63),
    (BestFirst(max_children=1), Chain(), BUDGET),
    (BestFirst(max_depth=1), Wide(), BUDGET),
    (BeamSearch(width=1, steps=BUDGET), Chain(), BUDGET),
    (BeamSearch(width=BUDGET, steps=1), Wide(), BUDGET),
    (ExpandRerank(top_k=1), Chain(), BUDGET),
    (ExpandRerank(top_k=BUDGET, steps=1), Wide(), BUDGET),
    (ExpandRerank(top_k=BUDGET, steps=BUDGET), BestFirst(), BUDGET),  # the beam holds all that may be in the tree
    (Adaptive(max_nodes_per_level=1), Chain(), BUDGET),
    (Adaptive(max_depth=1, margin=1e9), Wide(), BUDGET),
    (Measured(max_children=1), Chain(), BUDGET),
    (Hindsight(max_children=1), Chain(), BUDGET),
    (Hindsight(max_children=BUDGET, max_depth=1), Wide(), BUDGET),
    (Sequoia(max_children=1), Chain(), BUDGET),
    (Sequoia(max_depth=1), Wide(), BUDGET),
]


def plan_of(shape: Shape, budget: int, pair: Recorded) -> Plan:
    return StaticPlan(shape.fit(budget, pair.packed)) if shape.fitted else shape.at(budget)


def drafted(shape: Shape, budget: int) -> list[tuple[dict[tuple[int, ...], int], list[tuple[int, ...]]]]:
    """Every step of two prompts: the token at each rank path, and the accepted paths."""
    pair, steps = small(), []
    for prompt in pair.prompts[2:4]:
        verifier, drafter = Verifier(pair.target), ModelDrafter(pair.draft)
        setting = (plan_of(shape, budget, pair), Greedy(), Sampling())
        steps += decode(verifier, drafter, *setting, prompt, pair.ending).finish().steps
    listed = []
    for step in steps:
        paths = step.tree.topology.paths
        tokens = dict(zip(paths, step.tree.token_list(), strict=True))
        listed.append((tokens, [paths[node] for node in step.accepted]))
    return listed


@pytest.mark.parametrize(("shape", "other", "budget"), SHAPES, ids=lambda value: getattr(value, "label", value))
def test_a_shape_is_another_at_some_setting(shape: Shape, other: Shape, budget: int) -> None:
    steps = drafted(shape, budget)
    assert steps == drafted(other, budget)
    assert any(accepted for _, accepted in steps) and len(steps) > 4


def test_every_shape_is_in_the_table() -> None:
    assert {shape.kind for shape, _, _ in SHAPES} == set(registry())


class Equal(NamedTuple):
    """A rule is another one on these trees, for texts `sampled` so, with children that are `drawn` so."""

    rule: AcceptanceRule
    other: AcceptanceRule
    trees: list[Topology]
    sampled: Sampling = PLAIN
    drawn: Sampling = PLAIN


ZERO = Sampling(0.0)
CHAIN, ONE, TREES = complete(1, 1, 1), complete(1), [complete(3), complete(2, 2), complete(1, 3)]
RULES = [
    Equal(Greedy(), TopK(), [CHAIN, *TREES], ZERO),
    Equal(TopK(), Greedy(), [CHAIN, *TREES], ZERO),
    Equal(TopK(), Membership(), [CHAIN], PLAIN, ZERO),  # a drafter that is certain draws its best token
    Equal(Membership(), TopK(), [CHAIN], PLAIN, ZERO),
    Equal(Membership(), Recursive(), [CHAIN], PLAIN, ZERO),
    Equal(Rejection(), Recursive(), [ONE, CHAIN]),
    Equal(Recursive(), Rejection(), [ONE, CHAIN], Sampling(0.7, top_p=0.8), Sampling(0.7, top_p=0.8)),
    Equal(NoReplacement(), Rejection(), [ONE, CHAIN]),
    Equal(KSeq(), Rejection(), [ONE, CHAIN]),
    Equal(Block(), Rejection(), [ONE]),
    Equal(Block(), Traversal(), [ONE, CHAIN]),
    Equal(Traversal(), Block(), [ONE, CHAIN]),
    Equal(Traversal(), Recursive(), TREES[:1]),  # one level
    Equal(Typical(), Greedy(), [CHAIN, *TREES], ZERO),
    Equal(Typical(epsilon=1.0, delta=1e-9), Typical(epsilon=1e-9), [CHAIN, *TREES]),  # whatever can be said passes
]


@pytest.mark.parametrize("equal", RULES, ids=lambda equal: f"{equal.rule.label}={equal.other.label}")
def test_a_rule_is_another_at_some_setting(equal: Equal) -> None:
    """In law: what is emitted, and which nodes are accepted."""
    accepted = 0.0
    for tree in equal.trees:
        one, other = (
            Step(World(3, seed=5), tree, rule, equal.sampled, equal.drawn) for rule in (equal.rule, equal.other)
        )
        laws = one.law(), other.law()
        assert {text: chance for text, chance in laws[0].items() if chance > 1e-12} == pytest.approx(
            {text: chance for text, chance in laws[1].items() if chance > 1e-12}, abs=1e-9
        )
        reached = [{path: chance for path, chance in step.reached().items() if chance > 1e-12} for step in (one, other)]
        assert reached[0] == pytest.approx(reached[1], abs=1e-9)
        accepted += sum(reached[0].values())
    assert accepted > 0.1


def test_every_rule_is_in_the_table() -> None:
    assert {equal.rule.kind for equal in RULES} == set(rules())
