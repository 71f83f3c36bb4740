"""Children that are drawn at random: what is on the tree, what is dropped from it, what both caches hold afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.caches import cached_in
from support.drafting import prefilled
from support.random_trees import topologies
from support.tabled import TableModel, random_logits
from transformers import DynamicCache

from specdraft.acceptance import AcceptanceRule, KSeq, NoReplacement, Recursive, Traversal, registry
from specdraft.decoding.decode import decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Drawing
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.models.cached_model import CachedModel
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import RandomSource, seeded
from specdraft.trees.shapes import StaticPlan
from specdraft.trees.shapes.branching import Branching
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.step import Step
from specdraft.trees.topology import Topology

VOCAB = 7
PROMPT = [3, 1, 4]
NARROW = Sampling(1.0, top_k=2)
WIDER_THAN_THE_SUPPORT = Branching(factors=[4, 3, 2]).at(40)
DRAWING = {rule.draw: rule for rule in (Recursive(), NoReplacement())}


def tabled(seed: int = 0) -> tuple[TableModel, TableModel]:
    target, draft = (TableModel(logits, VOCAB) for logits in random_logits(VOCAB, seed))
    return target, draft


def steps(
    target: CachedModel,
    draft: CachedModel,
    plan: Any,
    rule: AcceptanceRule,
    sampling: Sampling,
    prompt: list[int],
    new: int = 24,
    seed: int = 0,
) -> Iterator[tuple[Step, list[int]]]:
    """Each step, and the text before it."""
    text, source = list(prompt), RandomSource(seeded(seed))
    setting = (plan, rule, sampling, prompt, Ending(new), source)
    decoding = decode(Verifier(target), ModelDrafter(draft), *setting, watched=True)
    text.append(decoding.first)
    for step in decoding:
        yield step, list(text)
        text += step.tokens


def check_tree(
    step: Step, text: list[int], draft: TableModel, full: Topology, rule: AcceptanceRule, sampling: Sampling
) -> None:
    """`drawn_from` is each parent's own distribution, and siblings are what can be drawn from it."""
    tree, topology, tokens = step.tree, step.tree.topology, step.tree.token_list()
    assert tokens[0] == text[-1]
    assert tree.drawn_from is not None
    assert tree.drawn_from.shape == (len(tree), VOCAB)
    assert isinstance(tree.draft_probs, torch.Tensor)
    assert set(topology.paths) <= set(full.paths)
    prefixes = [tuple(text)]
    for node in range(1, len(tree)):
        prefixes.append((*prefixes[topology.parents[node]], tokens[node]))
        own = torch.softmax(draft.logits(prefixes[topology.parents[node]]), -1)[tokens[node]]
        assert float(tree.draft_probs[node]) == pytest.approx(float(own), abs=1e-6)
    for node, children in enumerate(topology.children):
        wanted = standardise(draft.logits(prefixes[node]), sampling)
        asked = len(full.children[full.paths.index(topology.paths[node])])
        if not asked:
            assert not tree.drawn_from[node].any()
            continue
        torch.testing.assert_close(tree.drawn_from[node], wanted, atol=1e-12, rtol=0)
        drawn = [tokens[child] for child in children]
        assert all(wanted[token] > 0 for token in drawn)
        assert topology.ranks[children].tolist() == list(range(len(children)))
        if rule.draw == "without_replacement":
            assert len(set(drawn)) == len(drawn) == min(asked, int((wanted > 0).sum()))
        else:
            assert len(drawn) == asked


@pytest.mark.parametrize(
    "sampling", [Sampling(1.0), NARROW, Sampling(1.0, top_p=0.6), Sampling()], ids=["t1", "top-k", "top-p", "greedy"]
)
@pytest.mark.parametrize("draw", DRAWING)
def test_children_come_from_their_parents_distribution(draw: str, sampling: Sampling) -> None:
    target, draft = tabled()
    rule, sizes = DRAWING[draw], set()
    for plan in (WIDER_THAN_THE_SUPPORT, Kary(k=3).at(8), Chain().at(4)):
        for step, text in steps(target, draft, plan, rule, sampling, PROMPT):
            check_tree(step, text, draft, plan.topology, rule, sampling)
            sizes.add((plan.nodes, step.tree.num_nodes))
    dropped = any(nodes < most for most, nodes in sizes)
    assert dropped == (draw == "without_replacement" and sampling != Sampling(1.0))


@given(topologies(max_nodes=9).filter(lambda t: t.num_nodes > 0), st.integers(0, 2**20), st.sampled_from([1, 2, 3]))
@settings(max_examples=25)
def test_any_tree_without_replacement(topology: Topology, seed: int, top_k: int) -> None:
    """Tables notice a wrong mask, and the tokens in the caches are the text, whatever was dropped."""
    closed = Topology.from_paths(Topology(topology.parents.tolist()).paths[1:])
    (target, draft), sampling = tabled(seed % 5), Sampling(1.0, top_k=top_k)
    for step, text in steps(target, draft, StaticPlan(closed), NoReplacement(), sampling, PROMPT, 12, seed):
        check_tree(step, text, draft, closed, NoReplacement(), sampling)
        after = [*text, *step.tokens]
        assert target.slots == after[: len(after) - (not step.cut)]
        assert draft.slots == after[: draft.length]
        assert draft.length >= len(target.slots) - 1


def test_nothing_is_below_a_dropped_node() -> None:
    target, draft = tabled()
    for step, _ in steps(target, draft, WIDER_THAN_THE_SUPPORT, NoReplacement(), NARROW, PROMPT):
        assert step.tree.num_nodes == 2 + 4 + 8
        assert max(max(path, default=0) for path in step.tree.topology.paths) == 1
        assert len(step.tree.topology.children[0]) == 2


def test_no_child_is_lost_to_rounding(tiny_pair: Pair) -> None:
    """At a low temperature a float32 softmax has zeros where a child can still be drawn, and replay counts on it."""
    prompt, plan = tiny_pair.encode("x"), Wide().at(4)
    source = RandomSource(seeded())
    for temperature in (0.3, 0.02):
        drafter, verifier = ModelDrafter(tiny_pair.drafter.model), Verifier(tiny_pair.target)
        made = list(decode(verifier, drafter, plan, NoReplacement(), Sampling(temperature), prompt, Ending(12), source))
        assert {step.tree.num_nodes for step in made} == {4}


def fresh_cache(model: CachedModel, text: list[int]) -> DynamicCache:
    cache = DynamicCache()
    with torch.inference_mode():
        model.model(input_ids=torch.tensor([text]), **cached_in(model.model, cache))
    return cache


@pytest.mark.parametrize(
    "plan",
    [WIDER_THAN_THE_SUPPORT, Kary(k=3).at(12), Wide().at(5), Chain().at(4)],
    ids=["4-3-2", "kary", "wide", "chain"],
)
@pytest.mark.parametrize("rule", [NoReplacement(), KSeq(), Traversal()], ids=lambda rule: rule.kind)
def test_both_caches_hold_the_sampled_text(rule: AcceptanceRule, plan: StaticPlan, tiny_pair: Pair) -> None:
    prompt, sampling, accepted = tiny_pair.encode("The cat"), Sampling(1.0, top_k=2), 0
    made = decode(
        Verifier(tiny_pair.target),
        ModelDrafter(tiny_pair.drafter.model),
        plan,
        rule,
        sampling,
        prompt,
        Ending(20),
        RandomSource(seeded(rule.kind)),
    )
    for item in made:
        before = [*prompt, *made.tokens]
        accepted += item.accepted_tokens
        for model in (tiny_pair.target, tiny_pair.drafter.model):
            assert model.pending == 0
            assert (
                0 <= len(before) - (not item.cut) - model.length <= (model is tiny_pair.drafter.model)
            )  # an accepted leaf is fed later
            for kept, wanted in zip(
                model._cache.layers, fresh_cache(model, before[: model.length]).layers, strict=True
            ):
                torch.testing.assert_close(kept.keys, wanted.keys, atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(kept.values, wanted.values, atol=1e-4, rtol=1e-4)
    assert accepted > 2


@pytest.mark.parametrize("rule", [rule() for rule in registry().values()], ids=lambda rule: rule.kind)
def test_at_temperature_0_every_rule_gives_the_greedy_text(rule: AcceptanceRule) -> None:
    target, draft = tabled()
    wanted = decode_plainly(Verifier(target), Sampling(), PROMPT, Ending(24))
    for plan in (Chain().at(4),) if rule.chain_only else (Chain().at(4), Kary().at(6), WIDER_THAN_THE_SUPPORT):
        accepted = []
        for seed in range(2):
            found = list(steps(target, draft, plan, rule, Sampling(), PROMPT, 24, seed))
            assert found[-1][1] + found[-1][0].tokens == PROMPT + wanted
            accepted.append([step.accepted for step, _ in found])
        assert accepted[0] == accepted[1]
        assert any(map(len, accepted[0]))


def test_the_same_seed_is_the_same_text() -> None:
    target, draft = tabled()
    texts = [
        [step.tokens for step, _ in steps(target, draft, Kary().at(6), Recursive(), Sampling(1.0), PROMPT, 24, s)]
        for s in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_drawing_at_random_needs_a_source() -> None:
    drafter = ModelDrafter(tabled()[1])
    drafter.begin(prefilled(PROMPT))
    with pytest.raises(ConfigError, match="needs a source of randomness"):
        drafter.draft(0, Kary().at(2), Drawing("iid", Sampling(1.0)))
