from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.caches import cached_in
from support.drafting import prefilled
from support.tiny_models import SMALL_VOCAB, random_model, tiny_llama
from transformers import DynamicCache

from specdraft.acceptance import Greedy
from specdraft.decoding import clock as clock_module
from specdraft.decoding.clock import Clock
from specdraft.decoding.decode import Decoding, decode, decode_plainly
from specdraft.decoding.ending import Ending
from specdraft.decoding.text_seeds import text_generator
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.loaded.ranking import rank_tokens
from specdraft.drafters.pair import Pair
from specdraft.errors import TreeError
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import Forward
from specdraft.sampling.distribution import Sampling
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan, StaticShape
from specdraft.trees.shapes.base import DraftView, StaticPlan
from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.branching import Branching
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.paths import Paths
from specdraft.trees.shapes.published import Published
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import Topology

PROMPTS = ["Hello wörld", "The cat sat on"]
NEW = 32
GAPS = [[1], [1, 2], [1, 2, 0], [1, 2, 3], [4], [4, 0], [4, 0, 1]]  # ranks are left out
CASES: list[tuple[StaticShape, int]] = [
    *(
        (shape, budget)
        for shape in (Chain(), Wide(), Kary(), Kary(k=3), Branching(), Beam(), Beam(width=3))
        for budget in (1, 2, 6, 15)
    ),
    (Paths(paths=GAPS), 7),
    (Published(name="medusa/mc_sim_7b_63"), 63),
    (Published(name="eagle/mc_sim_7b_63"), 25),
]
SOME = [Chain().at(5), Wide().at(6), Kary(k=2).at(14), Beam(width=3).at(11), Paths(paths=GAPS).at(7)]
SOME_NAMES = ["chain", "wide", "kary", "beam", "gaps"]


def start(target: CachedModel, draft: CachedModel, plan: Plan, ids: list[int], ending: Ending) -> Decoding:
    return decode(Verifier(target), ModelDrafter(draft), plan, Greedy(), Sampling(), ids, ending)


def finished(decoding: Decoding) -> Decoding:
    return decoding.finish()


def plainly(target: CachedModel, ids: list[int], ending: Ending) -> list[int]:
    return decode_plainly(Verifier(target), Sampling(), ids, ending)


def by_transformers(model: Any, ids: list[int], ending: Ending) -> list[int]:
    prompt = torch.tensor([ids])
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=ending.max_new_tokens,
        eos_token_id=sorted(ending.eos_ids),
        pad_token_id=0,
    )
    return out[0, len(ids) :].tolist()


@torch.inference_mode()
def sequential(model: CachedModel, text: Sequence[int]) -> torch.Tensor:
    return model.model(input_ids=torch.tensor([list(text)]), use_cache=False).logits[0, -1:, : model.vocab]


@pytest.fixture(scope="module")
def prompts(tiny_pair: Pair) -> list[list[int]]:
    return [tiny_pair.encode(text) for text in PROMPTS]


@pytest.fixture(scope="module")
def references(tiny_pair: Pair, prompts: list[list[int]]) -> list[list[int]]:
    ending = Ending(NEW, tiny_pair.eos_ids)
    return [by_transformers(tiny_pair.target.model, ids, ending) for ids in prompts]


def test_plain_decoding_is_generate(tiny_pair: Pair, prompts: list[list[int]], references: list[list[int]]) -> None:
    ending = Ending(NEW, tiny_pair.eos_ids)
    assert [plainly(tiny_pair.target, ids, ending) for ids in prompts] == references


@pytest.mark.parametrize(("shape", "budget"), CASES, ids=lambda value: getattr(value, "label", value))
def test_every_tree_gives_the_text_of_the_target_alone(
    shape: StaticShape, budget: int, tiny_pair: Pair, prompts: list[list[int]], references: list[list[int]]
) -> None:
    plan, accepted = shape.at(budget), 0
    for ids, reference in zip(prompts, references, strict=True):
        run = finished(start(tiny_pair.target, tiny_pair.drafter.model, plan, ids, Ending(NEW, tiny_pair.eos_ids)))
        assert run.tokens == reference
        for step in run.steps:
            assert step.tree.num_nodes == budget == plan.nodes
            tokens = step.tree.token_list()
            assert [tokens[node] for node in step.accepted] == step.tokens[: step.accepted_tokens]
            assert step.tree.topology.parents[step.accepted].tolist() == [0, *step.accepted][:-1]
            assert (step.bonus_tokens, step.cut) in ((1, False), (0, True))
            assert min(step.draft_s, step.verify_s, step.other_s) > 0
        assert [step.tree.token_list()[0] for step in run.steps] == [
            run.first,
            *(step.tokens[-1] for step in run.steps[:-1]),
        ]
        assert len(reference) == 1 + sum(step.accepted_tokens + step.bonus_tokens for step in run.steps)
        accepted += sum(step.accepted_tokens for step in run.steps)
    assert accepted > 0


ORACLES = [
    "llama",
    "gpt2",
    "qwen3",
    "gemma3",
    "gpt_neox",
    "gpt_oss",
    "gemma2",
    "qwen2-sliding",
    "mistral-sliding",
    "opt",
]


@pytest.mark.parametrize("name", ORACLES)
def test_other_architectures_give_the_text_of_generate(name: str) -> None:
    target = random_model(name)
    draft = copy.deepcopy(target)
    with torch.no_grad():
        for i, weight in enumerate(draft.parameters()):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)), alpha=0.01)
    ids, ending = list(range(5, 16)), Ending(18)
    target.generation_config.eos_token_id = None
    reference = by_transformers(target, ids, Ending(18, frozenset([SMALL_VOCAB])))
    assert len(set(reference)) > 3  # no loop over one token
    assert plainly(CachedModel(target, SMALL_VOCAB), ids, ending) == reference
    for plan in (Kary(k=2).at(14), Beam(width=3).at(11)):
        run = finished(start(CachedModel(target, SMALL_VOCAB), CachedModel(draft, SMALL_VOCAB), plan, ids, ending))
        assert run.tokens == reference
        assert sum(step.accepted_tokens for step in run.steps) > 3


def test_a_lap_begins_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 103.0, 107.0, 200.0, 205.0])
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    clock = Clock(torch.device("cpu"))
    assert [clock.lap(), clock.lap()] == [3, 4]
    clock.restart()
    assert clock.lap() == 5


def test_an_unrelated_draft_changes_the_steps_and_not_the_text(
    tiny_pair: Pair, prompts: list[list[int]], references: list[list[int]]
) -> None:
    stranger = CachedModel(tiny_llama(seed=9), tiny_pair.drafter.model.vocab)
    for ids, reference in zip(prompts, references, strict=True):
        run = finished(start(tiny_pair.target, stranger, Kary().at(6), ids, Ending(NEW, tiny_pair.eos_ids)))
        assert run.tokens == reference
        assert sum(step.accepted_tokens for step in run.steps) < len(reference) / 4


def test_the_target_as_its_own_draft_accepts_every_chain(tiny_pair: Pair, prompts: list[list[int]]) -> None:
    own = CachedModel(tiny_pair.target.model, tiny_pair.target.vocab)
    run = finished(start(tiny_pair.target, own, Chain().at(4), prompts[0], Ending(21)))
    assert [(step.accepted_tokens, step.bonus_tokens, step.cut) for step in run.steps] == [(4, 1, False)] * 4
    run = finished(start(tiny_pair.target, own, Chain().at(4), prompts[0], Ending(20)))
    assert [(step.accepted_tokens, step.bonus_tokens, step.cut) for step in run.steps] == [(4, 1, False)] * 3 + [
        (4, 0, True)
    ]
    run = finished(start(tiny_pair.target, own, Chain().at(4), prompts[0], Ending(18)))
    assert [(step.accepted_tokens, step.bonus_tokens, step.cut) for step in run.steps] == [(4, 1, False)] * 3 + [
        (2, 0, True)
    ]


@pytest.mark.parametrize(
    ("limit", "eos", "emitted", "tokens", "kept"),
    [
        (10, (), 3, [5, 6, 7], [5, 6, 7]),
        (5, (), 3, [5, 6, 7], [5, 6]),
        (6, (), 3, [5, 6, 7], [5, 6, 7]),
        (10, (6,), 3, [5, 6, 7], [5, 6]),
        (10, (6, 5), 3, [5, 6, 7], [5]),
        (10, (7,), 3, [5, 6, 7], [5, 6, 7]),
        (4, (6,), 3, [5, 6, 7], [5]),
        (5, (6,), 3, [5, 6, 7], [5, 6]),
    ],
)
def test_emission_is_cut_at_the_limit_and_right_after_an_end_token(
    limit: int, eos: tuple[int, ...], emitted: int, tokens: list[int], kept: list[int]
) -> None:
    ending = Ending(limit, frozenset(eos))
    assert ending.cut(emitted, tokens) == kept
    assert ending.reached(emitted + len(kept), kept[-1]) == (emitted + len(kept) == limit or kept[-1] in eos)


@pytest.mark.parametrize("plan", SOME, ids=SOME_NAMES)
def test_every_length_limit_is_met_exactly(plan: StaticPlan, tiny_pair: Pair, prompts: list[list[int]]) -> None:
    reference = plainly(tiny_pair.target, prompts[0], Ending(20))
    last_was_cut = set()
    for limit in range(1, 20):
        run = finished(start(tiny_pair.target, tiny_pair.drafter.model, plan, prompts[0], Ending(limit)))
        assert run.tokens == reference[:limit] == plainly(tiny_pair.target, prompts[0], Ending(limit))
        assert (run.steps == []) == (limit == 1)
        assert not any(step.cut for step in run.steps[:-1])
        assert all(step.tree.num_nodes == plan.nodes for step in run.steps)
        last_was_cut |= {step.cut for step in run.steps[-1:]}
    assert last_was_cut == {True, False}


@pytest.mark.parametrize("plan", SOME, ids=SOME_NAMES)
def test_every_token_can_end_the_text(plan: StaticPlan, tiny_pair: Pair, prompts: list[list[int]]) -> None:
    reference = plainly(tiny_pair.target, prompts[0], Ending(24))
    last_was_cut = set()
    for eos in dict.fromkeys(reference):
        ending = Ending(24, frozenset([eos]))
        run = finished(start(tiny_pair.target, tiny_pair.drafter.model, plan, prompts[0], ending))
        assert (
            run.tokens
            == reference[: reference.index(eos) + 1]
            == by_transformers(tiny_pair.target.model, prompts[0], ending)
        )
        last = run.steps[-1:]
        last_was_cut |= {step.cut for step in last}
        for step in last:
            assert step.tokens[-1] == eos
            assert step.cut == (step.accepted_tokens == len(step.tokens))
            assert step.tree.num_nodes == plan.nodes
    assert last_was_cut == {True, False}


class Recorder(CachedModel):
    """Remembers, for each token that was fed, the text that ends with it."""

    def reset(self) -> None:
        super().reset()
        self.fed: list[tuple[int, ...]] = []
        self.kept: list[int] = []
        self._waiting: list[int] = []

    def prefill(self, token_ids: Sequence[int], layers: Sequence[int] = ()) -> Forward:
        for token in token_ids:
            self.kept.append(token)
            self.fed.append(tuple(self.kept))
        return super().prefill(token_ids, layers)

    def append(
        self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor, layers: Sequence[int] = ()
    ) -> Forward:
        self._waiting += tokens.tolist()
        self.fed += [
            (*self.kept, *(t for t, hidden in zip(self._waiting, row, strict=True) if not hidden))
            for row in tail.tolist()
        ]
        return super().append(tokens, offsets, tail, layers)

    def settle(self, count: int) -> None:
        self.kept += self._waiting[:count]
        del self._waiting[:count]
        super().settle(count)

    def commit(self, slots: Sequence[int]) -> None:
        self.kept += [self._waiting[slot] for slot in slots]
        self._waiting = []
        super().commit(slots)


@dataclass
class Fed:
    """A model's forwards since it was last asked, and the tokens in them."""

    forwards: int = 0
    tokens: int = 0

    def forget(self) -> None:
        self.forwards = self.tokens = 0


@contextmanager
def counted(model: Any) -> Iterator[Fed]:
    fed = Fed()

    def count(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        fed.forwards += 1
        fed.tokens += kwargs["input_ids"].numel()

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    yield fed
    hook.remove()


@pytest.mark.parametrize("plan", SOME, ids=SOME_NAMES)
def test_no_forward_is_repeated(plan: StaticPlan, tiny_pair: Pair, prompts: list[list[int]]) -> None:
    target, draft = (Recorder(m.model, m.vocab) for m in (tiny_pair.target, tiny_pair.drafter.model))
    inner = len(set(plan.topology.parents[1:].tolist()))
    text, missing = list(prompts[0]), 0
    with counted(target.model) as to_target, counted(draft.model) as to_draft:
        decoding = start(target, draft, plan, prompts[0], Ending(NEW))
        text.append(decoding.first)
        assert to_target == to_draft == Fed(1, len(prompts[0]))
        to_target.forget()
        to_draft.forget()
        for item in decoding:
            if item:
                text += item.tokens
                assert to_target == Fed(1, plan.nodes + 1)
                assert to_draft.forwards <= plan.depth
                assert to_draft.tokens == missing + inner
                assert target.kept == (text if item.cut else text[:-1])
                missing = len(target.kept) - len(draft.kept)
                assert missing in (0, 1)
                assert draft.kept == target.kept[: len(draft.kept)]
            to_target.forget()
            to_draft.forget()
    for model in (target, draft):
        assert len(set(model.fed)) == len(model.fed)
        assert {tuple(model.kept[: end + 1]) for end in range(len(model.kept))} <= set(model.fed)


def fresh_cache(model: CachedModel, text: list[int]) -> DynamicCache:
    cache = DynamicCache()
    with torch.inference_mode():
        model.model(input_ids=torch.tensor([text]), **cached_in(model.model, cache))
    return cache


@pytest.mark.parametrize("plan", SOME, ids=SOME_NAMES)
def test_both_caches_hold_the_committed_tokens_and_nothing_else(
    plan: StaticPlan, tiny_pair: Pair, prompts: list[list[int]]
) -> None:
    decoding = start(tiny_pair.target, tiny_pair.drafter.model, plan, prompts[1], Ending(NEW))
    for _ in decoding:
        text = [*prompts[1], *decoding.tokens]
        for model in (tiny_pair.target, tiny_pair.drafter.model):
            assert model.pending == 0
            assert model._cache.get_seq_length() == model.length
            fresh = fresh_cache(model, text[: model.length])
            for kept, wanted in zip(model._cache.layers, fresh.layers, strict=True):
                torch.testing.assert_close(kept.keys, wanted.keys, atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(kept.values, wanted.values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("plan", SOME, ids=SOME_NAMES)
def test_each_node_has_the_token_that_a_cache_free_draft_ranks_there(
    plan: StaticPlan, tiny_pair: Pair, prompts: list[list[int]]
) -> None:
    drafter, setting = ModelDrafter(tiny_pair.drafter.model), (plan, Greedy(), Sampling())
    decoding = decode(Verifier(tiny_pair.target), drafter, *setting, prompts[0], Ending(NEW), watched=True)
    text: list[int] = [*prompts[0], decoding.first]
    for item in decoding:
        tree, tokens = item.tree, item.tree.token_list()
        assert isinstance(tree.draft_probs, torch.Tensor)
        assert tree.draft_probs[0] == 1
        for node, children in enumerate(tree.topology.children):
            if children:
                path = [tokens[n] for n in range(len(tree)) if tree.topology.ancestors[node, n]]
                logits = sequential(tiny_pair.drafter.model, text[:-1] + path)
                ranks = tree.topology.ranks[children]
                expected = rank_tokens(logits, int(ranks.max()) + 1)[0, ranks]
                assert [tokens[child] for child in children] == expected.tolist()
                torch.testing.assert_close(
                    tree.draft_probs[children], torch.softmax(logits[0], -1)[expected], atol=1e-4, rtol=1e-3
                )
        text += item.tokens


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (Topology.from_paths([(0,), (258,)]), "child rank 258, but there are only 258 tokens"),
        (Topology([-1, 0, 1, 0]), "depth by depth"),
    ],
)
def test_a_tree_that_cannot_be_drafted_is_refused(
    topology: Topology, message: str, tiny_pair: Pair, prompts: list[list[int]]
) -> None:
    drafter = ModelDrafter(tiny_pair.drafter.model)
    drafter.begin(prefilled(prompts[0]))
    with pytest.raises(TreeError, match=message):
        drafter.draft(5, StaticPlan(topology))
    assert drafter.draft(5, Wide().at(258)).token_list()[0] == 5


def test_drafted_probabilities_are_kept_only_when_asked_for(tiny_pair: Pair, prompts: list[list[int]]) -> None:
    drafter = ModelDrafter(tiny_pair.drafter.model)
    drafter.begin(prefilled(prompts[0]))
    assert drafter.draft(5, Kary().at(6)).draft_probs is None


def test_a_plan_may_change_its_topology_from_step_to_step(
    tiny_pair: Pair, prompts: list[list[int]], references: list[list[int]]
) -> None:
    class Alternating:
        nodes, depth, dynamic, topology = 14, 5, True, None

        def __init__(self) -> None:
            self.turn = 0

        def expand(self, view: DraftView) -> DraftTree:
            self.turn += 1
            return SOME[self.turn % len(SOME)].expand(view)

    run = finished(
        start(tiny_pair.target, tiny_pair.drafter.model, Alternating(), prompts[0], Ending(NEW, tiny_pair.eos_ids))
    )
    assert run.tokens == references[0]
    assert {step.tree.num_nodes for step in run.steps} == {plan.nodes for plan in SOME}


def test_a_prompt_starts_over_whatever_was_left_undone(tiny_pair: Pair, prompts: list[list[int]]) -> None:
    verifier, drafter = Verifier(tiny_pair.target), ModelDrafter(tiny_pair.drafter.model)
    fresh = finished(
        start(tiny_pair.target, tiny_pair.drafter.model, Kary().at(6), prompts[0], Ending(NEW, tiny_pair.eos_ids))
    )
    ending = Ending(NEW, tiny_pair.eos_ids)
    for stop_after in range(1, 6):
        abandoned = decode(verifier, drafter, Wide().at(6), Greedy(), Sampling(), prompts[1], ending)
        for _ in zip(range(stop_after - 1), abandoned, strict=False):
            pass
        drafter.draft(7, Kary().at(6))
        again = finished(decode(verifier, drafter, Kary().at(6), Greedy(), Sampling(), prompts[0], ending))
        assert again.tokens == fresh.tokens
        assert [step.tree.token_list() for step in again.steps] == [step.tree.token_list() for step in fresh.steps]


def test_the_randomness_of_a_text(tiny_pair: Pair) -> None:
    """It depends on the target, the setting, the prompt, the draw, and on what live decoding adds."""
    warm, given = Sampling(1.0), (tiny_pair, Sampling(1.0), [3, 4], "0/0")
    stranger = replace(tiny_pair, files=replace(tiny_pair.files, target=tiny_pair.files.draft))
    others = [
        (stranger, warm, [3, 4], "0/0"),
        (tiny_pair, Sampling(0.9), [3, 4], "0/0"),
        (tiny_pair, Sampling(1.0, top_k=3), [3, 4], "0/0"),
        (tiny_pair, warm, [3, 5], "0/0"),
        (tiny_pair, warm, [3, 4], "0/1"),
        (tiny_pair, warm, [3, 4], "1/0"),
        (*given, "kary"),
    ]
    firsts = [float(torch.rand(1, generator=text_generator(*setting))) for setting in (given, given, *others)]
    assert firsts[0] == firsts[1]
    assert len(set(firsts)) == 1 + len(others)
