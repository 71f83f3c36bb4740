from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import isfinite, isnan
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.made_clock import Meter, Spent
from support.tiny_models import SMALL_VOCAB, random_model, save_model, tiny_llama

from specdraft.bench import costs as cost
from specdraft.bench import kept, measuring, stand
from specdraft.bench.costs import confirms, measure_costs
from specdraft.bench.curve import NOT_MEASURED, Circumstances, CostCurve, estimates
from specdraft.bench.kept import pair_costs
from specdraft.bench.points import CostPoint
from specdraft.decoding import clock
from specdraft.drafters.base import DrafterTraits
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
SPREAD = {"verify_s": [[99.0, 101.0]] * 4, "plain_s": [[89, 92]]}
MEASURED = Circumstances("2026-01-02T03:04:05+00:00", 1.5, 12.25, SPREAD, 0.25, 2)
DISTURBED = replace(MEASURED, elsewhere=1.5, unreliable=("other work used 1.5 of 2 cores", "and so on"))


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


def test_what_the_spread_of_costs_leaves_open_is_what_drawn_costs_say() -> None:
    """Against costs that are drawn from their spreads, a thousand times."""
    rng, sizes = np.random.default_rng(0), [[95.0, 105.0], [104.0, 116.0], [140.0, 160.0], [180.0, 200.0]]
    quartiles = {"verify_s": sizes, "plain_s": [[87, 93]], "draft_level_s": [[0.9, 1.1]] * 4, "other_s": [[0.4, 0.6]]}
    quartiles |= {"select_s": [[0.2, 0.3]], "target_prefill_s": [[650, 750]], "draft_prefill_s": [[290, 310]]}
    curve = replace(CURVE, measured=replace(MEASURED, quartiles=quartiles))
    tree, steps, new = Chain().at(3).topology, np.array([30, 5]), np.array([60, 9])
    found = estimates(curve, new, lambda costs: costs.decode_s(tree, steps))
    drawn = []
    for _ in range(1000):
        draw = {
            n: getattr(CURVE, n) + rng.normal(0, (q[0][1] - q[0][0]) / 1.349) for n, q in quartiles.items() if n in ONE
        }
        draw |= {n: [v + rng.normal(0, (high - low) / 1.349) for v, (low, high) in zip(getattr(CURVE, n), quartiles[n],
                 strict=True)] for n in ("verify_s", "draft_level_s")}  # fmt: skip
        target_s, draft_s = draw["target_prefill_s"], 300 + rng.normal(0, 20 / 1.349)
        costs = replace(CURVE, **draw | {"prefill_s": target_s + draft_s})
        drawn.append((costs.decode_s(tree, steps), costs.plain_decode_s(new)))
    spent, plain = np.array(drawn).transpose(1, 0, 2)
    assert found["est_s"] == pytest.approx(curve.decode_s(tree, steps))
    assert found["est_s_spread"] == pytest.approx(spent.std(0), rel=0.1)
    ratio = plain / spent
    assert found["est_speedup_spread"] / found["est_s"] == pytest.approx(ratio.std(0) / ratio.mean(0), rel=0.1)
    summed = spent.sum(1).std() / spent.sum(1).mean()  # of both prompts: what is off is off for both
    assert found["est_s_spread"].sum() / found["est_s"].sum() == pytest.approx(summed, rel=0.1)


ONE = ("plain_s", "other_s", "select_s", "target_prefill_s")
SECONDS = st.floats(1e-3, 10)


@given(st.data(), SECONDS, SECONDS, st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_no_estimate_exceeds_the_block_efficiency(
    data: st.DataObject, plain_s: float, other_s: float, tokens: list[int]
) -> None:
    """Whatever was measured: where it would, the costs are doubted."""
    verify = sorted(data.draw(st.lists(SECONDS, min_size=3, max_size=3)))
    prompt_s, draft_prompt_s = data.draw(SECONDS), data.draw(SECONDS)
    rest = (0.0, prompt_s + draft_prompt_s, prompt_s, 1, "made up")
    curve = CostCurve([1, 2, 8], [1e-3] * 3, verify, plain_s, other_s, *rest)
    emitted, efficiency = np.array([sum(tokens)]), sum(tokens) / len(tokens)
    shapes = [Topology([-1]), Chain().at(3).topology, Wide().at(9).topology]
    estimates = [curve.plain_decode_s(1 + emitted) / curve.decode_s(s, np.array([len(tokens)])) for s in shapes]
    assert curve.doubts or max(float(estimate[0]) for estimate in estimates) <= efficiency * (1 + 1e-12)
    assert bool(curve.doubts) == (plain_s > verify[0] + other_s)


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
    doubted = CostCurve.of(json.loads(json.dumps(replace(CURVE, measured=DISTURBED).as_dict())))
    assert doubted.measured == DISTURBED
    assert doubted.doubts == ("other work used 1.5 of 2 cores", "and so on")
    with pytest.raises(TypeError):
        CostCurve.of({"sizes": [1]})


class TestPairCosts:
    @pytest.fixture
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        """What was measured (made up, rather); every look at the pair confirms it."""
        calls: list[tuple[Any, ...]] = []
        self.how = MEASURED

        def measure(pair: Pair, largest: int, limit_s: float, watch: Watch, point: CostPoint) -> CostCurve:
            calls.append((pair, largest, limit_s, watch))
            of = {"sizes": [1, 2, 4, largest]} | point._asdict()
            return replace(CURVE, **of, device=kept.device_name(pair), measured=self.how)

        monkeypatch.setattr(cost, "measure_costs", measure)
        monkeypatch.setattr(cost, "confirms", lambda pair, curve: True)
        return calls

    def test_measured_again_if_the_pair_does_not_cost_that_any_more(
        self, tiny_pair: Pair, store: TraceStore, measured: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[CostCurve] = []
        monkeypatch.setattr(cost, "confirms", lambda pair, curve: bool(asked.append(curve)))
        first = pair_costs(tiny_pair, store, 8)
        assert not asked
        pair_costs(tiny_pair, store, 8)
        assert asked == [first]
        assert len(measured) == 2

    def test_what_cannot_be_trusted_is_measured_each_time_and_takes_no_place(
        self, tiny_pair: Pair, store: TraceStore, measured: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.how = DISTURBED
        assert pair_costs(tiny_pair, store, 8).measured == DISTURBED
        self.how = MEASURED
        assert pair_costs(tiny_pair, store, 8).measured == MEASURED
        self.how = DISTURBED
        assert pair_costs(tiny_pair, store, 8, again=True).measured == DISTURBED
        assert len(measured) == 3
        with monkeypatch.context() as patch:
            patch.setattr(cost, "confirms", lambda pair, curve: False)
            assert pair_costs(tiny_pair, store, 8).measured == DISTURBED
        assert pair_costs(tiny_pair, store, 8).measured == MEASURED  # the trusted ones are still there

    def test_models_that_would_have_to_be_read_are_not_asked(
        self, tiny_pair: Pair, store: TraceStore, measured: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*given: Any) -> bool:
            raise AssertionError("it was asked")

        monkeypatch.setattr(cost, "confirms", refuse)
        pair_costs(tiny_pair, store, 8)
        unread = SimpleNamespace(**{n: getattr(tiny_pair, n) for n in ("files", "target_facts", "draft_facts")})
        assert pair_costs(unread, store, 8).measured == MEASURED  # type: ignore[arg-type]

    def test_measured_once(self, tiny_pair: Pair, store: TraceStore, measured: list[Any]) -> None:
        first = pair_costs(tiny_pair, store, 8)
        assert len(measured) == 1
        assert pair_costs(tiny_pair, TraceStore(store.folder), 8).as_dict() == first.as_dict()
        assert first.measured == MEASURED
        assert len(measured) == 1
        assert all(type(size) is int for size in pair_costs(tiny_pair, store, 8).sizes)

    def test_each_point_has_its_own(self, tiny_pair: Pair, store: TraceStore, measured: list[Any]) -> None:
        points = [CostPoint(), CostPoint(32, 1), CostPoint(32, 4)]
        for _ in range(2):
            assert [pair_costs(tiny_pair, store, 8, point=point).point for point in points] == points
        assert len(measured) == 3

    def test_older_costs_of_batches_are_not_taken(
        self, tiny_pair: Pair, store: TraceStore, measured: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They were those of equal rows, on one of which heads drafted."""
        point = CostPoint(32, 4)
        with monkeypatch.context() as patch:
            patch.setattr(kept, "SIDE_BY_SIDE", {})
            pair_costs(tiny_pair, store, 8, point=point)
            pair_costs(tiny_pair, store, 8, point=CostPoint(32, 1))
        pair_costs(tiny_pair, store, 8, point=CostPoint(32, 1))
        assert len(measured) == 2
        pair_costs(tiny_pair, store, 8, point=point)
        assert len(measured) == 3

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
    curve = measure_costs(tiny_pair, 65)
    check_measured(curve, [1, 2, 4, 8, 16, 32, 64, 65])
    confirms(tiny_pair, curve)
    for model in (tiny_pair.target, tiny_pair.drafter.model):
        assert (model.length, model.pending) == (0, 0)


@pytest.mark.usefixtures("quickly")
def test_how_it_was_measured(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost.psutil, "getloadavg", lambda: (3.5, 1.0, 1.0))
    before = datetime.now(UTC).replace(microsecond=0)
    curve = measure_costs(tiny_pair, 8, meter=Meter(1.25))
    measured = curve.measured
    assert measured is not None
    assert before <= datetime.fromisoformat(measured.date) <= datetime.now(UTC)
    assert measured.load == 3.5
    assert 0 < measured.seconds < 60
    assert (measured.elsewhere, measured.cores) == (1.25, 2)
    assert measured.unreliable[0] == "other work used 1.2 of 2 cores while costs were measured"
    lengths = {name: len(quartiles) for name, quartiles in measured.quartiles.items()}
    alone = ("target_prefill_s", "draft_prefill_s", "plain_s", "other_s", "select_s", "draft_begin_s")
    assert lengths == {"draft_level_s": 4, "verify_s": 4} | dict.fromkeys(alone, 1)


@pytest.mark.usefixtures("quickly")
def test_a_short_context_and_a_small_vocabulary(tmp_path: Path) -> None:
    """A context of 128 positions, which GPT-2 has in a table; 96 tokens, fewer than the largest size."""
    models = {"gpt2": random_model("gpt2"), "llama": random_model("llama"), "long": tiny_llama(vocab_size=SMALL_VOCAB)}
    powers = [2**power for power in range(7)]
    for name, model in models.items():
        folder = save_model(tmp_path / name, model)
        pair = load_pair(PairSpec(name, ModelSpec(str(folder), device="cpu"), ModelSpec(str(folder), device="cpu")))
        assert (pair.files.shared_ids, pair.files.context_length) == (SMALL_VOCAB, 512 if name == "long" else 128)
        check_measured(measure_costs(pair, 128), [*powers, 128] if name == "long" else powers)


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

    chance = Random(0)

    class Disturbed(clock.Clock):
        def lap(self) -> float:
            spent.now += 1000.0 * (chance.random() < 0.1)
            return super().lap()

    class Keeping(ModelDrafter):
        def commit(self, *given: Any) -> None:
            super().commit(*given)
            spent.now += 400.0 if chance.random() < 0.1 else 0.25

    add = Growth.add

    def choosing(self: Growth, *given: Any) -> None:
        spent.now += 400.0 if chance.random() < 0.05 else 0.125
        add(self, *given)

    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=spent.perf_counter))
    monkeypatch.setattr(stand, "Clock", Disturbed)
    monkeypatch.setattr(kept, "PREFIX", 64)
    monkeypatch.setattr(measuring, "MOST", 15)
    monkeypatch.setattr(Growth, "add", choosing)
    model = tiny_pair.drafter.model
    drafter = Keeping(Timed(model, spent, 3.0, 1.0, 0.0), tiny_pair.drafter.files, tiny_pair.drafter.check)
    pair = replace(tiny_pair, target=Timed(tiny_pair.target, spent, 7.0, 2.0, 0.5), drafter=drafter)
    curve = measure_costs(pair, 32, limit_s=1e9, now=spent.perf_counter, meter=Meter())
    assert curve.doubts == ()
    assert curve.target_prefill_s == pytest.approx(7)
    assert curve.prefill_s == pytest.approx(7 + 3)
    assert curve.sizes == [1, 2, 4, 8, 16, 32]
    assert curve.verify_s == pytest.approx([2.5, 3, 4, 6, 10, 18])
    assert curve.draft_level_s == pytest.approx([1] * 6)
    assert curve.plain_s == pytest.approx(2.5)  # a step over one token; the prompt is not part of it
    assert curve.other_s == pytest.approx(0.25)
    assert curve.select_s == pytest.approx(
        0.125
    )  # of each level that was drafted, also where the tree has no node of it


@pytest.mark.parametrize("deepest", [None, 2])
def test_the_first_level_of_a_step_is_dearer(
    deepest: int | None, tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the target's forward, the draft model's takes 0.75 made-up seconds more."""
    spent = Spent()

    class After(Timed):
        cold = False

        def append(self, *given: Any) -> Forward:
            target.cold = True
            return super().append(*given)

    class Cold(Timed):
        def append(self, *given: Any) -> Forward:
            spent.now += 0.75 * target.cold
            target.cold = False
            return super().append(*given)

    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=spent.perf_counter))
    monkeypatch.setattr(kept, "PREFIX", 64)
    monkeypatch.setattr(measuring, "MOST", 5)
    target = After(tiny_pair.target, spent, 7.0, 2.0, 0.5)
    drafter = ModelDrafter(Cold(tiny_pair.drafter.model, spent, 3.0, 1.0, 0.0), tiny_pair.drafter.files)
    monkeypatch.setattr(ModelDrafter, "traits", DrafterTraits(deepest=deepest))
    pair = replace(tiny_pair, target=target, drafter=drafter)
    curve = replace(measure_costs(pair, 8, limit_s=1e9, now=spent.perf_counter, meter=Meter()), select_s=0.0)
    assert curve.draft_level_s == pytest.approx([1] * 4)
    assert curve.draft_begin_s == pytest.approx(0.75)
    levels, nodes = np.array([[1, 2], [1, 0], [0, 0]]), np.array([3, 1, 0])
    assert curve.dynamic_steps_s(levels, nodes) == pytest.approx(
        [2.75 + 4 + curve.other_s, 1.75 + 3 + curve.other_s, 2.5 + curve.other_s]
    )
    assert curve.step_s(Topology([-1, 0, 1])) == pytest.approx(2.75 + 3.5 + curve.other_s)
    assert curve.of_steps(levels, 1, dynamic=False).fixed_s - curve.other_s == pytest.approx([2.75, 1.75, 0])


def test_a_slow_pair_is_measured_at_few_sizes(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards of 20 made-up seconds and 60 s for all: each thing is timed once, and only what has to be."""
    spent = Spent()
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=spent.perf_counter))
    model = tiny_pair.drafter.model
    drafter = ModelDrafter(Timed(model, spent, 20.0, 20.0, 0.0), tiny_pair.drafter.files, tiny_pair.drafter.check)
    pair = replace(tiny_pair, target=Timed(tiny_pair.target, spent, 20.0, 20.0, 0.0), drafter=drafter)
    curve = measure_costs(pair, 65, limit_s=60.0, now=spent.perf_counter, meter=Meter())
    assert curve.sizes == [1, 2, 65]
    assert curve.verify_s == [20.0, 20.0, 20.0]
    assert curve.doubts == ()
    # two prompts, twice; three sizes; drafts of them, of four levels behind a verification, and of one; four plain
    # steps; twice two steps with up to four levels
    assert spent.now <= 20 * (4 + 3 + 3 * 5 + 2 + 4 + 4 * 5)


@pytest.mark.parametrize("left_out", ["draft_s", "verify_s"])
def test_a_size_that_time_left_half_out_is_left_out(
    tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    right = cost.in_turns

    def stopped(*given: Any, **more: Any) -> list[measuring.Timed]:
        return [timed for timed in right(*given, **more) if (timed.cell.quantity, timed.cell.size) != (left_out, 4)]

    monkeypatch.setattr(cost, "in_turns", stopped)
    curve = measure_costs(tiny_pair, 8, limit_s=0.5)
    assert 4 not in curve.sizes and curve.sizes[0] == 1 and curve.sizes[-1] == 8


def test_a_look_at_the_pair_confirms_what_it_costs(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = Spent()
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=spent.perf_counter))
    monkeypatch.setattr(kept, "PREFIX", 64)
    monkeypatch.setattr(measuring, "MOST", 5)

    def slowed(factor: float) -> Pair:
        model = tiny_pair.drafter.model
        drafter = ModelDrafter(Timed(model, spent, 0.003, 0.001, 0.0), tiny_pair.drafter.files, tiny_pair.drafter.check)
        target = Timed(tiny_pair.target, spent, 0.007, 0.002 * factor, 0.0005 * factor)
        return replace(tiny_pair, target=target, drafter=drafter)

    curve = measure_costs(slowed(1), 8, now=spent.perf_counter, meter=Meter())
    begun = spent.now
    assert confirms(slowed(1), curve, spent.perf_counter, Meter())
    assert spent.now - begun < 2
    assert confirms(slowed(1.05), curve, spent.perf_counter, Meter())  # less than a tenth
    assert not confirms(slowed(1.3), curve, spent.perf_counter, Meter())
    assert not confirms(slowed(0.7), curve, spent.perf_counter, Meter())
    assert not confirms(slowed(1), curve, spent.perf_counter, Meter(1.5))  # nobody can tell on a busy machine


def test_costs_are_named_by_their_point() -> None:
    """Whatever is measured first: a study that asks for another point later finds each where it was."""
    assert CostPoint().of("zoo") == "zoo"
    assert CostPoint(batch=8).of("zoo") == "zoo at context 128, batch 8"
    assert len({CostPoint(context, batch).of("zoo") for context in (128, 512) for batch in (1, 8)}) == 4
