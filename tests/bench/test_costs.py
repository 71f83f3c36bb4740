from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from math import isfinite, isnan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_models import SMALL_VOCAB, random_model, save_model, tiny_llama

from specdraft.bench import costs as cost
from specdraft.bench import kept, measuring
from specdraft.bench.costs import measure_costs
from specdraft.bench.curve import NOT_MEASURED, Circumstances, CostCurve
from specdraft.bench.kept import pair_costs
from specdraft.decoding import decode
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.ngram import Ngram, NgramDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import Forward
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.traces.store import TraceStore
from specdraft.traces.watch import Watch
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
MEASURED = Circumstances(
    "2026-01-02T03:04:05+00:00", 1.5, 12.25, {"verify_s": [[99.0, 101.0]] * 4, "plain_s": [[89, 92]]}
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


def test_what_is_not_measured_makes_no_estimate() -> None:
    assert isnan(NOT_MEASURED.step_s(Chain().at(3).topology))
    assert isnan(NOT_MEASURED.decode_s(Wide().at(9).topology, 5))
    assert isnan(NOT_MEASURED.plain_decode_s(5))
    assert np.isnan(NOT_MEASURED.dynamic_steps_s(np.array([[1, 2, 0]]), np.array([3]))).all()


def test_a_curve_goes_into_a_manifest_and_comes_out_of_it() -> None:
    curve = replace(CURVE, measured=MEASURED)
    again = CostCurve.of(json.loads(json.dumps(curve.as_dict())))
    assert again == curve
    assert again.measured == MEASURED
    assert CostCurve.of(CURVE.as_dict()).measured is None
    with pytest.raises(TypeError):
        CostCurve.of({"sizes": [1]})


class TestPairCosts:
    @pytest.fixture
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        """What was measured (made up, rather)."""
        calls: list[tuple[Any, ...]] = []

        def measure(pair: Pair, largest: int, limit_s: float, watch: Watch) -> CostCurve:
            calls.append((pair, largest, limit_s, watch))
            sizes = [1, 2, 4, largest]
            return replace(CURVE, sizes=sizes, device=kept.device_name(pair), measured=MEASURED)

        monkeypatch.setattr(cost, "measure_costs", measure)
        return calls

    def test_measured_once(self, tiny_pair: Pair, store: TraceStore, measured: list[Any]) -> None:
        first = pair_costs(tiny_pair, store, 8)
        assert len(measured) == 1
        assert pair_costs(tiny_pair, TraceStore(store.folder), 8).as_dict() == first.as_dict()
        assert first.measured == MEASURED
        assert len(measured) == 1
        assert all(type(size) is int for size in pair_costs(tiny_pair, store, 8).sizes)

    def test_measured_for_larger_trees_only(self, tiny_pair: Pair, store: TraceStore, measured: list[Any]) -> None:
        for largest in (8, 5, 8, 9, 2, 9, 100_000, 200_000):  # of the last two the context has room for as much
            pair_costs(tiny_pair, store, largest)
        assert [largest for _, largest, *_ in measured] == [8, 9, 100_000]

    def test_measured_again_if_asked(self, tiny_pair: Pair, store: TraceStore, measured: list[Any]) -> None:
        pair_costs(tiny_pair, store, 8)
        pair_costs(tiny_pair, store, 8, again=True)
        assert len(measured) == 2
        pair_costs(tiny_pair, store, 8)
        assert len(measured) == 2

    def test_the_limit_and_who_watches_reach_the_measuring(
        self, tiny_pair: Pair, store: TraceStore, measured: list[Any]
    ) -> None:
        class Told(Watch):
            stages: list[Any] = []  # noqa: RUF012

            def stage(self, name: str, due: float, unit: str) -> None:
                self.stages.append((name, due))

        watch = Told()
        pair_costs(tiny_pair, store, 8, limit_s=77.0, watch=watch)
        assert measured == [(tiny_pair, 8, 77.0, watch)]
        pair_costs(tiny_pair, store, 8, watch=watch)
        assert watch.stages == [("costs", 0)]  # nothing is left to do

    def test_measured_for_each_machine_and_number_of_threads(
        self, tiny_pair: Pair, store: TraceStore, measured: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair_costs(tiny_pair, store)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda: 7)
            pair_costs(tiny_pair, store)
        with monkeypatch.context() as patch:
            patch.setattr(kept, "cpu_name", lambda: "another CPU")
            pair_costs(tiny_pair, store)
        assert len(measured) == 3
        pair_costs(tiny_pair, store)
        assert len(measured) == 3
        pair_costs(replace(tiny_pair, drafter=NgramDrafter(Ngram(), frozenset())), store)
        monkeypatch.setattr(kept, "libraries", lambda: {"torch": "another"})
        pair_costs(tiny_pair, store)
        assert len(measured) == 5

    @pytest.mark.parametrize("harm", ["gone", "damaged", "other tensors"])
    def test_measured_again_where_it_cannot_be_read(
        self, harm: str, tiny_pair: Pair, store: TraceStore, measured: list[Any]
    ) -> None:
        pair_costs(tiny_pair, store, 8)
        ((path,), (listed,)) = store.folder.glob("*.safetensors"), store.list()
        if harm == "gone":
            path.unlink()
        elif harm == "damaged":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            tensors = store.get(listed.about)
            assert tensors is not None
            store.put(listed.about, {name: value for name, value in tensors.items() if name != "plain_s"})
        assert pair_costs(tiny_pair, store, 8).sizes == CURVE.sizes
        assert len(measured) == 2


def check_measured(curve: CostCurve, sizes: list[int]) -> None:
    assert curve.sizes == sizes
    assert len(curve.draft_level_s) == len(curve.verify_s) == len(sizes)
    listed: list[Any] = [*curve.draft_level_s, *curve.verify_s, curve.prefill_s, curve.target_prefill_s]
    assert all(isfinite(value) and value > 0 for value in [*listed, curve.plain_s, curve.other_s])
    assert curve.prefill_s > curve.target_prefill_s
    assert curve.threads == torch.get_num_threads()


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "MOST", 1)


@pytest.mark.usefixtures("quickly")
def test_measuring_leaves_the_models_empty(tiny_pair: Pair) -> None:
    check_measured(measure_costs(tiny_pair, 65), [1, 3, 8, 23, 65])
    for model in (tiny_pair.target, tiny_pair.drafter.model):
        assert (model.length, model.pending) == (0, 0)


@pytest.mark.usefixtures("quickly")
def test_how_it_was_measured(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost.psutil, "getloadavg", lambda: (3.5, 1.0, 1.0))
    before = datetime.now(UTC).replace(microsecond=0)
    curve = measure_costs(tiny_pair, 8)
    measured = curve.measured
    assert measured is not None
    assert before <= datetime.fromisoformat(measured.date) <= datetime.now(UTC)
    assert measured.load == 3.5
    assert 0 < measured.seconds < 60
    lengths = {name: len(quartiles) for name, quartiles in measured.quartiles.items()}
    alone = ("target_prefill_s", "draft_prefill_s", "plain_s", "other_s", "select_s")
    assert lengths == {"draft_level_s": 3, "verify_s": 3} | dict.fromkeys(alone, 1)
    for name in ("draft_level_s", "verify_s"):
        of_each = zip(measured.quartiles[name], getattr(curve, name), strict=True)
        assert all(low <= median <= high for (low, high), median in of_each)


@pytest.mark.usefixtures("quickly")
def test_a_short_context_and_a_small_vocabulary(tmp_path: Path) -> None:
    """A context of 128 positions, which GPT-2 has in a table; 96 tokens, fewer than the largest size."""
    models = {"gpt2": random_model("gpt2"), "llama": random_model("llama"), "long": tiny_llama(vocab_size=SMALL_VOCAB)}
    for name, model in models.items():
        folder = save_model(tmp_path / name, model)
        pair = load_pair(PairSpec(name, ModelSpec(str(folder), device="cpu"), ModelSpec(str(folder), device="cpu")))
        assert (pair.files.shared_ids, pair.files.context_length) == (SMALL_VOCAB, 512 if name == "long" else 128)
        check_measured(measure_costs(pair, 128), [1, 3, 11, 38, 128] if name == "long" else [1, 4, 16, 64])


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
    monkeypatch.setattr(kept, "PREFIX", 64)
    monkeypatch.setattr(measuring, "MOST", 7)
    monkeypatch.setattr(Growth, "add", choosing)
    model = tiny_pair.drafter.model
    drafter = Keeping(Timed(model, spent, 3.0, 1.0, 0.0), tiny_pair.drafter.files, tiny_pair.drafter.check)
    pair = replace(tiny_pair, target=Timed(tiny_pair.target, spent, 7.0, 2.0, 0.5), drafter=drafter)
    curve = measure_costs(pair, 32, limit_s=1e9, now=spent.perf_counter)
    assert curve.target_prefill_s == pytest.approx(7)
    assert curve.prefill_s == pytest.approx(7 + 3)
    assert curve.sizes == [1, 3, 10, 32]
    assert curve.verify_s == pytest.approx([2.5, 3.5, 7, 18])
    assert curve.draft_level_s == pytest.approx([1, 1, 1, 1])
    assert curve.plain_s == pytest.approx(2.5)  # a step over one token; the prompt is not part of it
    assert curve.other_s == pytest.approx(0.25)
    assert curve.select_s == pytest.approx(
        0.125
    )  # of each level that was drafted, also where the tree has no node of it


def test_a_slow_pair_is_measured_at_few_sizes(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards of 20 made-up seconds and 60 s for all: each thing is timed once, and only what has to be."""
    spent = Spent()
    monkeypatch.setattr(decode, "time", SimpleNamespace(perf_counter=spent.perf_counter))
    model = tiny_pair.drafter.model
    drafter = ModelDrafter(Timed(model, spent, 20.0, 20.0, 0.0), tiny_pair.drafter.files, tiny_pair.drafter.check)
    pair = replace(tiny_pair, target=Timed(tiny_pair.target, spent, 20.0, 20.0, 0.0), drafter=drafter)
    curve = measure_costs(pair, 65, limit_s=60.0, now=spent.perf_counter)
    assert curve.sizes == [1, 65]
    assert curve.verify_s == [20.0, 20.0]
    # two prompts, two sizes of both models, a plain step, and two steps with up to four levels
    assert spent.now <= 20 * (2 + 4 + 1 + 2 * 5)
