"""Costs of a batch are those of what live decoding in batches does: forwards together, all else text by text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.made_clock import Meter, Spent

from specdraft import load_pair
from specdraft.acceptance import Greedy
from specdraft.bench import kept, measuring
from specdraft.bench.costs import measure_costs
from specdraft.bench.curve import CostCurve
from specdraft.bench.in_batch import SideBySide, drafter_of
from specdraft.bench.points import CostPoint
from specdraft.decoding import batch, clock
from specdraft.decoding.decode import decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.seat import Seat
from specdraft.drafters import registry
from specdraft.drafters.base import BY_RANK
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair
from specdraft.models.cached_model import CachedModel
from specdraft.sampling.distribution import Sampling
from specdraft.trees.growth import Growth
from specdraft.trees.shapes.best_first import BestFirst

TEXTS, PREFIX = 3, 20


class Timed(CachedModel):
    """A forward takes so many made-up seconds, and each token of each row some."""

    def __init__(self, model: CachedModel, spent: Spent, forward_s: float, token_s: float) -> None:
        super().__init__(model.model, model.vocab, model.width)
        self._spent, self._seconds = spent, (forward_s, token_s)

    def forward(self, token_ids: torch.Tensor, layers: Sequence[int] = (), **inputs: Any) -> tuple[torch.Tensor, Any]:
        self._spent.now += self._seconds[0] + self._seconds[1] * token_ids.numel()
        return super().forward(token_ids, layers, **inputs)


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> Spent:
    """What is measured, in few rounds, is what is spent on purpose."""
    spent = Spent()
    for module in (clock, batch):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=spent.perf_counter))
    monkeypatch.setattr(measuring, "MOST", 2)
    return spent


def measured(pair: Pair, spent: Spent, texts: int = TEXTS) -> CostCurve:
    point = CostPoint(PREFIX, texts)
    return measure_costs(pair, 4, limit_s=1e9, now=spent.perf_counter, meter=Meter(), point=point)


@pytest.mark.parametrize("texts", [1, TEXTS])
def test_a_draft_model_drafts_for_all_texts_in_one_forward(
    tiny_pair: Pair, spent: Spent, texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done besides forwards is done for each."""

    class Keeping(ModelDrafter):
        def commit(self, *given: Any) -> None:
            super().commit(*given)
            spent.now += 0.25

    add = Growth.add

    def choosing(self: Growth, *given: Any) -> None:
        spent.now += 0.125
        add(self, *given)

    monkeypatch.setattr(Growth, "add", choosing)
    drafter = Keeping(Timed(tiny_pair.drafter.model, spent, 1.0, 0.0), tiny_pair.drafter.files)
    pair = replace(tiny_pair, target=Timed(tiny_pair.target, spent, 2.0, 0.5), drafter=drafter)
    curve = measured(pair, spent, texts)
    assert curve.point == CostPoint(PREFIX, texts)
    assert curve.verify_s == pytest.approx([2 + 0.5 * texts * size for size in (1, 2, 4)])
    assert curve.plain_s == pytest.approx(2 + 0.5 * texts)
    assert curve.draft_level_s == pytest.approx([1.0] * 3)
    assert curve.draft_begin_s == pytest.approx(0)
    assert curve.other_s == pytest.approx(0.25 * texts)
    assert curve.select_s == pytest.approx(0.125 * texts)
    assert curve.target_prefill_s == pytest.approx(texts * (2 + 0.5 * PREFIX))  # one after another
    assert curve.prefill_s - curve.target_prefill_s == pytest.approx(texts * 1)


@pytest.mark.parametrize("texts", [1, TEXTS])
@pytest.mark.parametrize("kind", ["ngram", "lookahead", "medusa", "eagle", "parallel"])
def test_look_ups_and_heads_draft_text_by_text(
    kind: str, texts: int, spent: Spent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up, a block, levels: each text's draft takes 1 made-up second, and an eighth for each of its levels."""
    monkeypatch.setattr(kept, "PREFIX", PREFIX)
    pair = load_pair("zoo", registry()[kind]())
    right = type(pair.drafter).draft

    def draft(self: Any, root: int, plan: Any, drawing: Any = BY_RANK) -> Any:
        spent.now += 1 + plan.depth / 8
        return right(self, root, plan, drawing)

    monkeypatch.setattr(type(pair.drafter), "draft", draft)
    curve = measured(pair, spent, texts)
    assert curve.draft_level_s == pytest.approx([texts / 8] * 3)
    assert curve.draft_begin_s == pytest.approx(texts * 1)


def test_every_place_holds_a_text_of_its_own(tiny_pair: Pair) -> None:
    """Side by side each text is what it is alone; a tree goes through the target in one forward."""
    shapes: list[tuple[int, ...]] = []

    def note(module: Any, args: Any, given: dict[str, Any]) -> None:
        shapes.append(tuple(given["input_ids"].shape))

    def text(ids: list[int], seat: Seat) -> list[int]:
        given = (BestFirst(max_depth=3).at(6), Greedy(), Sampling(), ids, Ending(20))
        return decode(seat.verifier, drafter_of(seat), *given, times=seat.times).finish().tokens

    works = [partial(text, ids) for ids in ([5, 6, 7, 8, 9], [9, 8], [5, 5, 6, 5])]
    alone, together = SideBySide(tiny_pair, 1), SideBySide(tiny_pair, TEXTS)
    wanted = [alone.first(work) for work in works]
    hook = tiny_pair.target.model.register_forward_pre_hook(note, with_kwargs=True)
    assert together.each(works) == wanted
    hook.remove()
    assert (TEXTS, 7) in shapes and {shape[0] for shape in shapes if shape[1] == 1} <= {1, 2, TEXTS}
    assert together.all(works[0]) == [wanted[0]] * TEXTS
    assert together.first(works[1]) == wanted[1]


@pytest.mark.parametrize("texts", [1, TEXTS])
def test_what_goes_wrong_is_told(tiny_pair: Pair, texts: int) -> None:
    def fail(seat: Seat) -> None:
        raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        SideBySide(tiny_pair, texts).all(fail)
