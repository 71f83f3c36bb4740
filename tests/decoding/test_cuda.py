"""What only a GPU can show: the same counts and texts as on the CPU."""

from __future__ import annotations

import pytest
from support.recorded import Live, expansions, recorded, untimed
from support.tallied import replay_dynamic

from specdraft.config import Settings
from specdraft.decoding.ending import Ending
from specdraft.drafters.pair import Pair, find_pair, load_pair
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.study.generate import SpeculativeDecoder
from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary

pytestmark = pytest.mark.gpu
TEXTS = ["Once upon a time", "def add(a, b):\n    return", "Question: Anna has 12 apples and buys 5 more."]
SETTINGS = Settings(max_new_tokens=32)


def on(device: str, dtype: str = "float32") -> Pair:
    models = [ModelSpec(f"zoo:{role}", device=device, dtype=dtype) for role in ("target", "draft")]
    return load_pair(find_pair(PairSpec("zoo", *models)))


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
