"""What only a GPU can show: the same counts and texts as on the CPU."""

from __future__ import annotations

import warnings

import pytest
import torch
from support.decoded import texts_of
from support.recorded import Live, expansions, recorded, untimed
from support.tallied import replay_dynamic

from specdraft.acceptance import AcceptanceRule, Greedy, Recursive, TopK, Traversal, Typical
from specdraft.config import Settings
from specdraft.decoding.batch import Batch
from specdraft.decoding.decode import decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.seat import Caches
from specdraft.drafters.pair import Pair, find_pair, load_pair
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import RandomSource
from specdraft.study.generate import SpeculativeDecoder
from specdraft.trees.shapes.base import Plan
from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary

pytestmark = pytest.mark.gpu
TEXTS = ["Once upon a time", "def add(a, b):\n    return", "Question: Anna has 12 apples and buys 5 more."]
SETTINGS = Settings(max_new_tokens=32)


def on(device: str, dtype: str = "float32", attention: str = "auto") -> Pair:
    models = [ModelSpec(f"zoo:{role}", device=device, dtype=dtype, attention=attention) for role in ("target", "draft")]
    return load_pair(find_pair(PairSpec("zoo", *models)))


@pytest.fixture(scope="module")
def on_gpu() -> Pair:
    return on("cuda")


def test_texts_are_those_of_the_cpu() -> None:
    there, here = (SpeculativeDecoder(on(device), "kary", 14, SETTINGS.max_new_tokens) for device in ("cuda", "cpu"))
    for text in TEXTS:
        assert there.generate(text).token_ids == here.generate(text).token_ids


def test_replay_is_live() -> None:
    pair = on("cuda")
    one = recorded(pair.target, pair.drafter.model, [pair.encode(text) for text in TEXTS], Ending(32, pair.eos_ids))
    for shape in (Chain().at(8), Kary().at(14), Beam(width=3).at(12)):
        one.check(shape.topology)
    grown = expansions(one, BestFirst().at(16))
    for budget in (4, 16):
        counted = replay_dynamic(one.packed, grown, BestFirst().at(budget))[0]
        live = Live(one, BestFirst().at(budget)).tallies
        assert list(map(untimed, counted)) == list(map(untimed, live))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_decodes(dtype: str) -> None:
    result = SpeculativeDecoder(on("cuda", dtype), "kary", 14, SETTINGS.max_new_tokens).generate(TEXTS[0])
    assert len(result.token_ids) == SETTINGS.max_new_tokens
    assert result.tally.accepted_tokens > 0


@pytest.mark.parametrize("cache", ["static", "graph"])
def test_other_caches_give_the_same_texts_and_steps(cache: str) -> None:
    pair = on("cuda")
    usual, other = (SpeculativeDecoder(pair, "kary", 14, 32, cache=kind) for kind in ("dynamic", cache))
    for text in TEXTS:
        one, two = usual.generate(text), other.generate(text)
        assert one.token_ids == two.token_ids
        assert [step.accepted for step in one.steps] == [step.accepted for step in two.steps]


@pytest.mark.parametrize("cache", ["dynamic", "graph"])
def test_the_kernel_in_models_gives_the_same_texts(cache: str) -> None:
    usual, other = (
        SpeculativeDecoder(on("cuda", attention=kind), "kary", 14, 32, cache=cache) for kind in ("own", "triton")
    )
    for text in TEXTS:
        assert usual.generate(text).token_ids == other.generate(text).token_ids


def test_texts_side_by_side_are_those_alone() -> None:
    pair = on("cuda")
    texts = texts_of(Kary().at(6))
    seat = Caches(pair).seat("dynamic")
    expected = [text(seat) for text in texts]
    found = {ended.number: ended.result for ended in Batch[list[object]](pair.target, pair.drafter, 3).decode(texts)}
    assert [found[number] for number in range(len(texts))] == expected


@pytest.mark.parametrize("plan", [Chain().at(4), Kary().at(6)])
@pytest.mark.parametrize("rule", [Greedy(), TopK(), Recursive(), Traversal(), Typical()])
def test_a_step_waits_once(on_gpu: Pair, rule: AcceptanceRule, plan: Plan) -> None:
    pair, sampling = on_gpu, Sampling(0.0 if rule.greedy_only else 1.0)
    source = RandomSource(torch.Generator().manual_seed(1))
    seat = Caches(pair).seat("dynamic")
    assert seat.drafter is not None
    ids = pair.encode(TEXTS[0])
    steps = iter(decode(seat.verifier, seat.drafter, plan, rule, sampling, ids, Ending(64), source))
    next(steps)  # makes what a tree needs on the device
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waited:
            warnings.simplefilter("always")
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([one for one in waited if "synchronizing" in str(one.message)]) == 1
