from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from math import isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_models import SMALL_VOCAB, random_model, save_model, tiny_llama

from specdraft.bench import costs as cost
from specdraft.bench.costs import SIZES, CostCurve, measure_costs, pair_costs
from specdraft.decoding import decode
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.ngram import Ngram, NgramDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import Forward
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.traces.store import TraceStore
from specdraft.trees.growth import Growth
from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import Topology

CURVE = CostCurve(
    sizes=[1, 2, 4, 8],
    draft_level_s=[1.0, 2.0, 6.0, 10.0],
    verify_s=[100.0, 110.0, 150.0, 190.0],
    plain_s=90.0,
    other_s=0.5,
    select_s=0.25,
    prefill_s=1000.0,
    target_prefill_s=700.0,
    threads=1,
    device="made up",
)


@pytest.mark.parametrize(
    ("topology", "drafting", "verifying"),
    [
        (Topology([-1]), 0, 100),
        (Chain().at(1).topology, 1, 110),
        (Chain().at(3).topology, 3 * 1, 150),
        (Chain().at(2).topology, 2 * 1, 130),  # three tokens: half-way between 2 and 4
        (Wide().at(7).topology, 1, 190),
        (Kary().at(6).topology, 1 + 2, 180),  # levels below 1 and 2 parents; seven tokens
        (Beam(width=3).at(6).topology, 1 + 4, 180),  # levels below 1 and 3 parents
        (Topology([-1, 0, 0, 1, 1]), 1 + 1, 160),  # the second child has no children and is not fed
    ],
)
def test_a_step_is_its_levels_and_its_verification(topology: Topology, drafting: float, verifying: float) -> None:
    assert CURVE.step_s(topology) == pytest.approx(drafting + verifying + 0.5)
    assert CURVE.decode_s(topology, 7) == pytest.approx(1000 + 7 * (drafting + verifying + 0.5))
    assert CURVE.decode_s(topology, 0) == 1000


def test_sizes_beyond_the_measured_ones_cost_more() -> None:
    assert CURVE.step_s(Wide().at(15).topology) == pytest.approx(1 + 190 + 8 * 10 + 0.5)  # 10 s a token from 8 on
    falling = replace(CURVE, verify_s=[100.0, 110.0, 200.0, 190.0])  # noise: never less than the last one
    assert falling.step_s(Wide().at(15).topology) == pytest.approx(1 + 190 + 0.5)


def test_plain_decoding() -> None:
    assert CURVE.plain_decode_s(1) == 700
    assert CURVE.plain_decode_s(11) == 700 + 10 * 90


def test_each_level_of_a_dynamic_tree_costs_its_selection_too() -> None:
    """Two steps: levels from 1 and 2 parents, 3 nodes; one level from 1 parent, 1 node."""
    found = CURVE.dynamic_steps_s(np.array([[1, 2, 0], [1, 0, 0]]), np.array([3, 1]))
    assert found.tolist() == pytest.approx([(1 + 0.25) + (2 + 0.25) + 150 + 0.5, (1 + 0.25) + 110 + 0.5])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TraceStore:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return TraceStore(tmp_path / "traces")


class TestPairCosts:
    @pytest.fixture
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
        """The pairs whose costs were measured (made up, rather)."""
        pairs: list[Pair] = []
        monkeypatch.setattr(
            cost, "measure_costs", lambda pair: pairs.append(pair) or replace(CURVE, device=cost._device_name(pair))
        )
        return pairs

    def test_measured_once(self, tiny_pair: Pair, store: TraceStore, measured: list[Pair]) -> None:
        notes: list[str] = []
        first = pair_costs(tiny_pair, store, notes.append)
        assert (len(measured), len(notes)) == (1, 1)
        assert pair_costs(tiny_pair, TraceStore(store.folder), notes.append) == first
        assert (len(measured), len(notes)) == (1, 1)
        assert first.as_dict() == pair_costs(tiny_pair, store).as_dict()
        assert all(type(size) is int for size in pair_costs(tiny_pair, store).sizes)

    def test_measured_for_each_machine_and_number_of_threads(
        self, tiny_pair: Pair, store: TraceStore, measured: list[Pair], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair_costs(tiny_pair, store)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda: 7)
            pair_costs(tiny_pair, store)
        with monkeypatch.context() as patch:
            patch.setattr(cost, "cpu_name", lambda: "another CPU")
            pair_costs(tiny_pair, store)
        assert len(measured) == 3
        pair_costs(tiny_pair, store)
        assert len(measured) == 3
        pair_costs(replace(tiny_pair, drafter=NgramDrafter(Ngram(), frozenset())), store)
        monkeypatch.setattr(cost, "libraries", lambda: {"torch": "another"})
        pair_costs(tiny_pair, store)
        assert len(measured) == 5

    @pytest.mark.parametrize("harm", ["gone", "damaged", "other tensors"])
    def test_measured_again_where_it_cannot_be_read(
        self, harm: str, tiny_pair: Pair, store: TraceStore, measured: list[Pair]
    ) -> None:
        pair_costs(tiny_pair, store)
        ((path,), (listed,)) = store.folder.glob("*.safetensors"), store.list()
        if harm == "gone":
            path.unlink()
        elif harm == "damaged":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            tensors = store.get(listed.about)
            assert tensors is not None
            store.put(listed.about, {name: value for name, value in tensors.items() if name != "plain_s"})
        assert pair_costs(tiny_pair, store).sizes == CURVE.sizes
        assert len(measured) == 2


def check_measured(curve: CostCurve, sizes: list[int]) -> None:
    assert curve.sizes == sizes
    assert len(curve.draft_level_s) == len(curve.verify_s) == len(sizes)
    listed: list[Any] = [*curve.draft_level_s, *curve.verify_s, curve.prefill_s, curve.target_prefill_s]
    assert all(isfinite(value) and value > 0 for value in [*listed, curve.other_s])
    assert isfinite(curve.plain_s)
    assert curve.prefill_s > curve.target_prefill_s
    assert curve.threads == torch.get_num_threads()


def test_measuring_leaves_the_models_empty(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "REPEATS", 1)
    monkeypatch.setattr(cost, "WARM_UP", 0)
    check_measured(measure_costs(tiny_pair), list(SIZES))
    for model in (tiny_pair.target, tiny_pair.drafter.model):
        assert (model.length, model.pending) == (0, 0)


def test_a_short_context_and_a_small_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context of 128 positions, which GPT-2 has in a table; 96 tokens, fewer than the largest size."""
    monkeypatch.setattr(cost, "REPEATS", 1)
    monkeypatch.setattr(cost, "WARM_UP", 0)
    models = {"gpt2": random_model("gpt2"), "llama": random_model("llama"), "long": tiny_llama(vocab_size=SMALL_VOCAB)}
    for name, model in models.items():
        folder = save_model(tmp_path / name, model)
        pair = load_pair(PairSpec(name, ModelSpec(str(folder), device="cpu"), ModelSpec(str(folder), device="cpu")))
        assert (pair.files.shared_ids, pair.files.context_length) == (SMALL_VOCAB, 512 if name == "long" else 128)
        check_measured(measure_costs(pair), list(SIZES) if name == "long" else [1, 2, 4, 8, 16, 32, 64])


class Spent:
    """A made-up clock: it goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed(CachedModel):
    """Its forwards take so many made-up seconds: a prompt, or some tokens."""

    def __init__(self, model: CachedModel, spent: Spent, prompt_s: float, forward_s: float, token_s: float) -> None:
        super().__init__(model.model, model.vocab)
        self._spent, self._seconds = spent, (prompt_s, forward_s, token_s)

    def prefill(self, token_ids: Sequence[int], layers: Sequence[int] = ()) -> Forward:
        self._spent.now += self._seconds[0]
        return super().prefill(token_ids, layers)

    def append(
        self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor, layers: Sequence[int] = ()
    ) -> Forward:
        self._spent.now += self._seconds[1] + self._seconds[2] * len(tokens)
        return super().append(tokens, offsets, tail, layers)


def test_what_is_measured_is_what_was_spent(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that now and then does something else in between: medians do not see it, means would."""
    spent = Spent()

    class Disturbed(decode.Clock):
        laps = 0

        def lap(self) -> float:
            self.laps += 1
            spent.now += 1000.0 * (self.laps % 3 == 2)
            return super().lap()

    class Keeping(ModelDrafter):
        commits = 0

        def commit(self, *given: Any) -> None:
            super().commit(*given)
            self.commits += 1
            spent.now += 400.0 if self.commits % 4 == 3 else 0.25

    add, adds = Growth.add, count()

    def choosing(self: Growth, *given: Any) -> None:
        spent.now += 400.0 if next(adds) == 2 else 0.125
        add(self, *given)

    monkeypatch.setattr(decode, "time", SimpleNamespace(perf_counter=spent.perf_counter))
    monkeypatch.setattr(cost, "Clock", Disturbed)
    for name, value in {"SIZES": (1, 2, 4, 32), "PREFIX": 64, "REPEATS": 5, "WARM_UP": 1}.items():
        monkeypatch.setattr(cost, name, value)
    monkeypatch.setattr(Growth, "add", choosing)
    model = tiny_pair.drafter.model
    drafter = Keeping(Timed(model, spent, 3.0, 1.0, 0.0), tiny_pair.drafter.files, tiny_pair.drafter.check)
    curve = measure_costs(replace(tiny_pair, target=Timed(tiny_pair.target, spent, 7.0, 2.0, 0.5), drafter=drafter))
    assert curve.target_prefill_s == pytest.approx(7)
    assert curve.prefill_s == pytest.approx(7 + 3)
    assert curve.verify_s == pytest.approx([2.5, 3, 4, 18])
    assert curve.draft_level_s == pytest.approx([1, 1, 1, 1])
    assert curve.plain_s == pytest.approx(2.5)  # a step over one token; the prompt is not part of it
    assert curve.other_s == pytest.approx(0.25)
    assert 0.125 <= curve.select_s < 2  # more than one level's: some levels are drafted and then no part of the tree
