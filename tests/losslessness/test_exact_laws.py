"""The law of the text under every rule, enumerated exactly through the functions that decoding calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.laws import law_by_rank, law_of_record
from support.random_trees import topologies

from specdraft.acceptance import (
    AcceptanceRule,
    Block,
    KSeq,
    NoReplacement,
    Recursive,
    Rejection,
    TopK,
    Traversal,
    Typical,
    registry,
)
from specdraft.acceptance.base import NO_SOURCE, Accepted
from specdraft.acceptance.judging import Judged
from specdraft.losslessness.enumeration import (
    EXACT,
    PLAIN,
    EnumeratingSource,
    Prefix,
    Step,
    World,
    emitted,
    key,
    outcomes,
    shape,
)
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import Asking, Source
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import RankPath, Topology

CAUGHT = 1e-3


@dataclass(frozen=True)
class Faulty(Step):
    """A step and what may be wrong with it; `judged_target` and `judged_draft`: what the rule is told, if that
    differs."""

    judged_target: Sampling | None = None
    judged_draft: Sampling | None = None
    stale: bool = False  # the draft distribution of the root everywhere
    sort_children: bool = False  # after drawing
    prune_below: float = 0.0  # after drawing

    def children(self, prefix: Prefix, children: list[int], source: Source) -> list[tuple[int, int]]:
        drawn = super().children(prefix, children, source)
        if not (self.sort_children or self.prune_below):
            return drawn
        probs = self.world.draft(prefix, key(self.drawn))
        tokens = [token for _, token in drawn if probs[token] >= self.prune_below]
        return list(enumerate(sorted(tokens, key=lambda token: -probs[token]) if self.sort_children else tokens))

    def probs(self, tree: DraftTree, prefixes: list[Prefix]) -> tuple[torch.Tensor, torch.Tensor]:
        told = Step(
            self.world, self.topology, self.rule, self.judged_target or self.target, self.judged_draft or self.drawn
        )
        return told.probs(tree, prefixes)[0], told.probs(tree, [()] * len(prefixes) if self.stale else prefixes)[1]


CHAINS = {"chain-1": (4, shape(1)), "chain-3": (3, shape(1, 1, 1))}
TREES = {
    "wide-3": (4, shape(3)),
    "wide-5": (3, shape(5)),
    "2-2": (2, shape(2, 2)),
    "random": (3, Topology([-1, 0, 0, 2, 1, 2])),
    "1-3": (3, shape(1, 3)),
}
LARGE = {"2-2-1": (2, shape(2, 2, 1)), "random-large": (2, Topology([-1, 0, 0, 2, 0, 2, 5, 1]))}
SAMPLINGS = {
    "t1": PLAIN,
    "t06": Sampling(0.6),
    "top-k": Sampling(1.0, top_k=2),
    "top-p": Sampling(1.0, top_p=0.7),
    "both": Sampling(0.8, top_k=3, top_p=0.8),
    "one-hot": Sampling(0.0),
}
RULES = {kind: rule() for kind, rule in registry().items() if not rule.greedy_only}
LOSSLESS = {kind: rule for kind, rule in RULES.items() if rule.lossless}


def cases() -> Iterator[Any]:
    for (name, rule), (tree, (vocab, topology)) in product(LOSSLESS.items(), (CHAINS | TREES | LARGE).items()):
        for label, sampling in SAMPLINGS.items():
            if rule.misfit(sampling, chain=topology.is_chain) is None and (
                tree not in LARGE or label in ("t1", "top-p")
            ):
                step = Step(World(vocab), topology, rule, sampling, sampling)
                slow = tree in LARGE or label == "t06"  # "both" has a temperature too
                yield pytest.param(step, id=f"{name}-{tree}-{label}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("step", list(cases()))
def test_the_text_follows_the_target_exactly(step: Step) -> None:
    law = step.law()
    assert sum(law.values()) == pytest.approx(1, abs=EXACT)
    assert step.distance(law) < EXACT


@settings(max_examples=12)
@given(
    topologies(max_nodes=4),
    st.integers(2, 3),
    st.integers(0, 2**20),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from(list(SAMPLINGS.values())),
    st.sampled_from(list(SAMPLINGS.values())),
)
@pytest.mark.parametrize("kind", LOSSLESS)
def test_any_tree_with_a_draft_that_is_sampled_in_its_own_way(
    kind: str, topology: Topology, vocab: int, seed: int, likeness: float, target: Sampling, drawn: Sampling
) -> None:
    rule = LOSSLESS[kind]
    if rule.chain_only:
        topology = Topology(range(-1, topology.num_nodes))
    assert Step(World(vocab, seed, likeness), topology, rule, target, drawn).distance() < EXACT


class Heads(World):
    """A draft that proposes by the distance from the root, whatever the tokens before, as heads on one state do."""

    def _logits(self, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        return super()._logits(prefix)[0], super()._logits((-1, len(prefix)))[1]


@pytest.mark.parametrize("label", ["t1", "top-p"])
@pytest.mark.parametrize("tree", ["chain-3", "2-2", "1-3"])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_children_that_heads_draw(kind: str, tree: str, label: str) -> None:
    (vocab, topology), sampling = (CHAINS | TREES)[tree], SAMPLINGS[label]
    if LOSSLESS[kind].misfit(sampling, chain=topology.is_chain) is not None:
        return
    world = Heads(vocab)
    assert torch.equal(world.draft((0, 1), key(sampling)), world.draft((1, 0), key(sampling)))
    assert not torch.equal(world.draft((), key(sampling)), world.draft((1,), key(sampling)))
    assert Step(world, topology, LOSSLESS[kind], sampling, sampling).distance() < EXACT


def test_typical_acceptance_is_lossy() -> None:
    distances = {
        f"{tree} {label}": Step(World(vocab), topology, Typical(), sampling, sampling).distance()
        for tree, (vocab, topology) in (CHAINS | TREES).items()
        for label, sampling in SAMPLINGS.items()
        if not sampling.greedy
    }
    print("total variation of typical acceptance:", {name: round(found, 4) for name, found in distances.items()})
    assert max(distances.values()) > 0.1
    assert sum(found > CAUGHT for found in distances.values()) > len(distances) / 2
    assert (
        Step(World(3), shape(2, 2), Typical(), Sampling(), Sampling()).distance() < EXACT
    )  # nothing else is typical at 0


# Planted faults: each is caught, and the same step without the fault is not.

TOP_P = Sampling(1.0, top_p=0.7)
READS_DRAFT = {kind: rule for kind, rule in LOSSLESS.items() if rule.needs_draft_probs}
BRANCHING = [kind for kind, rule in READS_DRAFT.items() if not rule.chain_only]


def step_of(rule: AcceptanceRule, **changes: Any) -> Step:
    return Faulty(World(4, seed=3), shape(1, 1) if rule.chain_only else shape(2, 1), rule, **changes)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_fault_a_residual_from_the_wrong_distribution(kind: str) -> None:
    class FromTheTarget(type(LOSSLESS[kind])):  # type: ignore[misc]
        def judge(self, tree: DraftTree, target_probs: torch.Tensor, draft_probs: torch.Tensor) -> Judged:
            return super().judge(tree, target_probs, draft_probs)._replace(residual=target_probs)

    assert step_of(FromTheTarget()).distance() > CAUGHT
    assert step_of(LOSSLESS[kind]).distance() < EXACT


@pytest.mark.parametrize("kind", READS_DRAFT)
def test_fault_a_stale_draft_distribution(kind: str) -> None:
    assert step_of(READS_DRAFT[kind], stale=True).distance() > CAUGHT


class ReusedNumbers(EnumeratingSource):
    """Each flip compares with the very number from which the last token was drawn."""

    def choose(self, weights: torch.Tensor) -> torch.Tensor:
        token = super().choose(weights)
        ends = (weights[0] / weights[0].sum()).cumsum(0).tolist()
        self._span = ends[token[0] - 1] if token[0] else 0.0, ends[token[0]]
        return token

    def flips(self, chances: torch.Tensor, asking: Asking) -> torch.Tensor:
        low, high = self._span
        return super().flips(((chances - low) / (high - low)).clamp(0, 1), asking)


@pytest.mark.parametrize("kind", READS_DRAFT)
def test_fault_reused_random_numbers(kind: str) -> None:
    step = Step(World(4), shape(1), READS_DRAFT[kind])
    tied = emitted(outcomes(step.together, ReusedNumbers))
    assert sum(tied.values()) == pytest.approx(1, abs=EXACT)
    assert step.distance(tied) > CAUGHT
    assert step.distance(emitted(outcomes(step.together))) < EXACT


@pytest.mark.parametrize("kind", LOSSLESS)
def test_fault_top_p_left_off_the_target(kind: str) -> None:
    assert step_of(LOSSLESS[kind], target=TOP_P, drawn=TOP_P, judged_target=PLAIN).distance() > CAUGHT


@pytest.mark.parametrize("kind", LOSSLESS)
def test_top_p_on_the_target_alone_is_lossless(kind: str) -> None:
    assert step_of(LOSSLESS[kind], target=TOP_P, drawn=PLAIN).distance() < EXACT


@pytest.mark.parametrize("kind", READS_DRAFT)
def test_fault_drawn_from_the_adjusted_draft_but_judged_by_the_full_one(kind: str) -> None:
    assert step_of(READS_DRAFT[kind], drawn=TOP_P, judged_draft=PLAIN).distance() > CAUGHT
    assert step_of(READS_DRAFT[kind], drawn=TOP_P).distance() < EXACT


@pytest.mark.parametrize("kind", BRANCHING)
def test_fault_children_reordered_after_they_were_drawn(kind: str) -> None:
    assert step_of(READS_DRAFT[kind], sort_children=True).distance() > CAUGHT


@pytest.mark.parametrize("kind", BRANCHING)
def test_fault_children_pruned_after_they_were_drawn(kind: str) -> None:
    assert step_of(READS_DRAFT[kind], prune_below=0.15).distance() > CAUGHT


@pytest.mark.parametrize("kind", LOSSLESS)
def test_fault_the_bonus_token_drawn_from_unprocessed_logits(kind: str) -> None:
    step = step_of(LOSSLESS[kind], target=TOP_P, drawn=TOP_P)
    unprocessed = replace(step, target=PLAIN)

    def wrong(source: Source) -> Accepted:
        tree, prefixes = step.draft(source)
        accepted = step.rule.accept(tree, *step.probs(tree, prefixes), source)
        if tree.topology.children[last := accepted.nodes[-1] if accepted.nodes else 0]:
            return accepted
        return accepted._replace(bonus=int(source.choose(unprocessed.probs(tree, prefixes)[0][last : last + 1])))

    assert step.distance(emitted(outcomes(wrong))) > CAUGHT


# What is accepted: the forms that replay multiplies are the live law, node by node.


def mean_pi(world: World, rule: AcceptanceRule, prefix: Prefix, most: int, count: int) -> torch.Tensor:
    """`[vocab, count]` pi of every next token after a prefix, averaged over the rule's own randomness: of a node with
    `count` children, recorded for up to `most`."""
    target, draft = world.target(prefix, key(PLAIN))[None], world.draft(prefix, key(PLAIN))[None]

    def pi(token: torch.Tensor, source: Source) -> torch.Tensor:
        return law_of_record(rule, rule.record(target, draft, token, most, source), count)

    tokens = torch.arange(world.vocab).split(1)
    return torch.cat([sum(chance * row for row, chance in outcomes(lambda s, t=t: pi(t, s))) for t in tokens])


def replayed(world: World, topology: Topology, rule: AcceptanceRule) -> dict[RankPath, float]:
    """P(accepted) of each node: over all texts, the target's law times the product of pi."""
    most = max(map(len, topology.children))

    @cache
    def pi(prefix: Prefix, count: int) -> torch.Tensor:
        return mean_pi(world, rule, prefix, most, count)

    found = {}
    for path in topology.paths[1:]:
        found[path] = 0.0
        for text in product(range(world.vocab), repeat=len(path)):
            weight = 1.0
            for depth, token in enumerate(text):
                children = topology.children[topology.paths.index(path[:depth])]
                chance = pi(text[:depth], len(children))[token, path[depth]]
                weight *= float(world.target(text[:depth], key(PLAIN))[token] * chance)
            found[path] += weight
    return found


NODE_WISE = ["rejection", "recursive", "no_replacement", "kseq", "membership"]


@pytest.mark.parametrize("tree", [*CHAINS, *TREES])
@pytest.mark.parametrize("kind", NODE_WISE)
def test_pi_is_the_live_law_node_by_node(kind: str, tree: str) -> None:
    (vocab, topology), rule = (CHAINS | TREES)[tree], LOSSLESS[kind]
    if rule.misfit(PLAIN, chain=topology.is_chain):
        pytest.skip("for chains only")
    live = Step(World(vocab), topology, rule).reached()
    assert replayed(World(vocab), topology, rule) == pytest.approx(
        {path: live.get(path, 0.0) for path in topology.paths[1:]}, abs=1e-8
    )


def test_pi_by_rank_is_the_live_law_node_by_node() -> None:
    world, topology, rule = World(4), shape(3, 2), TopK()
    found = dict.fromkeys(topology.paths[1:], 0.0)
    for text in product(range(4), repeat=2):
        chance, path = 1.0, ()
        for depth, token in enumerate(text):
            chance *= float(world.target(text[:depth], key(TOP_P))[token])
            scores = world.scores(text[:depth])[None]
            pi = law_by_rank(scores, torch.tensor([token]), 4)[0]
            assert pi.sum() == 1
            path += (int(pi.argmax()),)
        for node in (path[:1], path):
            if node in found:
                found[node] += chance
    live = Step(world, topology, rule, TOP_P, TOP_P).reached()
    assert found == pytest.approx({path: live.get(path, 0.0) for path in found}, abs=1e-8)


@pytest.mark.parametrize("gamma", [1, 2, 3, 4])
def test_the_ratio_of_block_verification_gives_its_accepted_tokens(gamma: int) -> None:
    world, rule = World(2 if gamma == 4 else 3), Block()
    expected = 0.0
    for text in product(range(world.vocab), repeat=gamma):
        prefixes = [text[:depth] for depth in range(gamma)]
        target, draft = (
            torch.stack([law(prefix, key(PLAIN)) for prefix in prefixes]) for law in (world.target, world.draft)
        )
        ratios = rule.record(target, draft, torch.tensor(text), 1, NO_SOURCE)["ratio"]
        at_least = torch.cat([torch.ones(1), ratios.cumprod(0)]).cummin(0).values[1:]
        expected += float(target.gather(1, torch.tensor(text)[:, None]).prod() * at_least.sum())
    assert Step(world, shape(*[1] * gamma), rule).accepted_tokens() == pytest.approx(expected, abs=1e-8)


class Thirds(World):
    """Target (1/3, 2/3) and draft (2/3, 1/3) after every prefix: Sun et al.'s example."""

    def _logits(self, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        target, draft = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64).log()
        return target, draft


@pytest.mark.parametrize(("gamma", "tokenwise", "block"), [(2, 10 / 9, 11 / 9), (4, 130 / 81, 166 / 81)])
def test_the_published_example_of_block_verification(gamma: int, tokenwise: float, block: float) -> None:
    chain = shape(*[1] * gamma)
    for rule in (Rejection(), Recursive(), NoReplacement(), KSeq()):
        assert Step(Thirds(2), chain, rule).accepted_tokens() == pytest.approx(tokenwise, abs=EXACT)
    for rule in (Block(), Traversal()):
        assert Step(Thirds(2), chain, rule).accepted_tokens() == pytest.approx(block, abs=EXACT)


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (3, 4, 5))])
@pytest.mark.parametrize("tree", TREES)
def test_traversal_never_accepts_less_than_recursive_rejection(tree: str, seed: int) -> None:
    vocab, topology = TREES[tree]
    found = [
        Step(World(min(vocab, 3), seed, 0.2), topology, rule).accepted_tokens() for rule in (Traversal(), Recursive())
    ]
    assert found[0] >= found[1] - EXACT


def test_a_wider_tree_never_accepts_less() -> None:
    for rule in (rule for rule in LOSSLESS.values() if not rule.chain_only):
        accepted = [Step(World(3), shape(width), rule).accepted_tokens() for width in (1, 2, 3, 4)]
        assert all(more >= less - EXACT for less, more in pairwise(accepted)), rule.kind
