from __future__ import annotations

from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import SMALL_VOCAB, random_model, save_model, tiny_llama

from specdraft.bench import costs as cost
from specdraft.bench.costs import SIZES, CostCurve, measure_costs, pair_costs
from specdraft.drafters.pair import Pair, load_pair
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.traces.store import TraceStore
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
