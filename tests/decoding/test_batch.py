"""Texts that are decoded side by side: each is what it would be alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.decoded import CHAIN, DYNAMIC, KARY, Asked, models, texts_of
from support.tiny_models import ARCHITECTURES

from specdraft import drafters
from specdraft.acceptance import Greedy
from specdraft.acceptance.no_replacement import NoReplacement
from specdraft.decoding import batch as batch_module
from specdraft.decoding.batch import Batch, SharedClock, Text
from specdraft.decoding.clock import ALONE
from specdraft.decoding.decode import plain_tokens
from specdraft.decoding.seat import Seat
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import Drafter
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.models.batched_model import BatchedModel, BatchRow
from specdraft.models.cached_model import CachedModel
from specdraft.models.slot_cache import SlotCache
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import RandomSource, seeded

SEATS = 3


def alone(target: CachedModel, drafter: Drafter, texts: Sequence[Text[Any]]) -> list[Any]:
    seat = Seat(Verifier(target, drafter.traits.hidden_layers), drafter, ALONE)
    return [text(seat) for text in texts]


def side_by_side(target: CachedModel, drafter: Drafter | None, texts: Sequence[Text[Any]], seats: int = SEATS) -> Any:
    found = dict[int, Any]()
    for ended in Batch[Any](target, drafter, seats).decode(texts):
        if ended.error is not None:
            raise ended.error
        found[ended.number] = ended.result
    return [found[number] for number in range(len(texts))]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_decodes_each_text_as_if_it_were_alone(name: str) -> None:
    target, draft = models(name)
    texts = texts_of(KARY)
    expected = alone(target, ModelDrafter(draft), texts)
    assert sum(len(step[1]) for text in expected for step in text[1:]) > 10  # nodes that are committed
    assert side_by_side(target, ModelDrafter(draft), texts) == expected


SAMPLED = Sampling(temperature=1.0, top_k=20)


@pytest.mark.parametrize("name", ["llama", "mistral-sliding", "gemma2"])
@pytest.mark.parametrize(
    "texts",
    [
        texts_of(CHAIN),
        texts_of(DYNAMIC),
        texts_of(CHAIN, NoReplacement(), SAMPLED),
        texts_of(KARY, NoReplacement(), SAMPLED),
    ],
    ids=["chain", "best_first", "chain-sampled", "kary-sampled"],
)
def test_so_do_other_trees_and_rules(name: str, texts: list[Asked]) -> None:
    target, draft = models(name)
    assert side_by_side(target, ModelDrafter(draft), texts) == alone(target, ModelDrafter(draft), texts)


@pytest.fixture(scope="module")
def zoo() -> Pair:
    return load_pair("zoo")


@pytest.mark.parametrize("kind", ["model", "nano", "early_exit", "medusa", "eagle", "parallel", "ngram", "suffix"])
def test_so_does_every_drafter(kind: str, zoo: Pair) -> None:
    drafter = load_pair(zoo.files.spec, drafters.registry()[kind](), target_of=zoo).drafter
    prompts = [zoo.encode(text) for text in ("the the the", "Once upon a time there was", "1 2 3 4 1 2 3 4 1 2")]
    texts = [Asked(ids, new, KARY, Greedy(), Sampling()) for ids, new in zip(prompts, (12, 17, 9), strict=True)]
    assert side_by_side(zoo.target, drafter, texts, 2) == alone(zoo.target, drafter, texts)


def test_plain_decoding_goes_side_by_side_too() -> None:
    target, _ = models("gemma2")

    def plainly(asked: Asked, seat: Seat) -> list[int]:
        source = RandomSource(seeded("text", asked.ids))
        return list(plain_tokens(seat.verifier, SAMPLED, asked.ids, asked.ending, source))

    texts = [partial(plainly, asked) for asked in texts_of(KARY)]
    assert side_by_side(target, None, texts) == [text(Seat(Verifier(target), None, ALONE)) for text in texts]


def test_a_row_takes_a_prompt_in_parts_and_goes_back() -> None:
    target, _ = models("gemma3")

    def in_parts(seat: Seat) -> list[Any]:
        model, found = seat.verifier.model, list[Any]()
        model.reset()
        model.prefill([5, 6, 7])
        found.append(model.prefill([8, 9, 10, 11]).logits.argmax())
        model.rewind(4)
        found.append(model.extend(12).argmax())
        found.append(model.prefill([13, 14]).logits.argmax())
        return [model.length, model.pending, *map(int, found)]

    assert side_by_side(target, None, [in_parts] * 3) == [in_parts(Seat(Verifier(target), None, ALONE))] * 3


def test_places_are_taken_again_at_once_and_no_model_runs_more_often_than_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, draft = models("llama")
    sizes: dict[int, list[int]] = {id(target): [], id(draft): []}
    run = BatchedModel.run

    def counting(self: BatchedModel, requests: Any) -> Any:
        sizes[id(self.model)].append(len(requests))
        return run(self, requests)

    monkeypatch.setattr(BatchedModel, "run", counting)
    texts = [Asked([3, 4, 5], 12, CHAIN, Greedy(), Sampling()) for _ in range(6)]  # all alike
    (expected, *_) = side_by_side(target, ModelDrafter(draft), texts)
    steps = len(expected) - 1
    assert [sizes[id(target)].count(n) for n in (1, 3)] == [6, 2 * steps]  # prompts; two rounds of three texts
    assert [sizes[id(draft)].count(n) for n in (1, 3)] == [6, 2 * steps * 3]


def test_a_text_that_fails_ends_alone() -> None:
    target, draft = models("llama")
    texts = texts_of(CHAIN)
    expected = alone(target, ModelDrafter(draft), texts)

    def failing(seat: Seat) -> list[Any]:
        seat.verifier.prefill([1, 2, 3])
        raise ValueError("this one only")

    batch = Batch[Any](target, ModelDrafter(draft), SEATS)
    ended = {end.number: end for end in batch.decode([texts[0], failing, *texts[1:]])}
    assert [str(ended[n].error) for n in ended if ended[n].error] == ["this one only"]
    assert [ended[n].result for n in sorted(ended) if n != 1] == expected


def test_a_forward_that_fails_ends_those_that_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = models("llama")
    texts, run, calls = texts_of(CHAIN), BatchedModel.run, iter(range(1000))

    def failing(self: BatchedModel, requests: Any) -> Any:
        if len(requests) == SEATS and next(calls) == 2:
            raise RuntimeError("out of memory")
        return run(self, requests)

    expected = alone(target, ModelDrafter(draft), texts)
    monkeypatch.setattr(BatchedModel, "run", failing)
    ended = {e.number: e for e in Batch[Any](target, ModelDrafter(draft), SEATS).decode(texts)}
    assert sorted(n for n in ended if ended[n].error) == [0, 1, 2]
    assert [ended[n].result for n in range(3, len(texts))] == expected[3:]


def test_who_stops_listening_ends_all_texts() -> None:
    target, draft = models("llama")
    left = list[int]()

    def text(number: int, seat: Seat) -> Any:
        try:
            return texts_of(CHAIN)[number](seat)
        finally:
            left.append(number)

    batch = Batch[Any](target, ModelDrafter(draft), SEATS)
    ends = batch.decode([partial(text, number) for number in range(5)])
    first = next(ends).number
    ends.close()
    assert left[0] == first and sorted(left) == [*range(len(left))] and len(left) in (SEATS, SEATS + 1)
    assert side_by_side(target, ModelDrafter(draft), texts_of(CHAIN)[:2])  # nothing is left behind


def test_an_interruption_ends_all_texts() -> None:
    target, draft = models("llama")
    ended = list[int]()

    def text(number: int, seat: Seat) -> Any:
        try:
            seat.verifier.prefill([1, 2, number])
            if number == 1:
                raise KeyboardInterrupt
            return texts_of(CHAIN)[number](seat)
        finally:
            ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        side_by_side(target, ModelDrafter(draft), [partial(text, number) for number in range(5)])
    assert sorted(ended) == [0, 1, 2]


def test_the_mode_of_inference_is_each_texts_own() -> None:
    target, _ = models("llama")

    def inside(seat: Seat) -> bool:
        with torch.inference_mode():
            seat.verifier.prefill([1, 2, 3])
            seat.verifier.model.extend(4)
            return torch.is_inference_mode_enabled()

    def outside(seat: Seat) -> bool:
        seat.verifier.prefill([1, 2])
        seat.verifier.model.extend(4)
        return torch.is_inference_mode_enabled()

    assert side_by_side(target, None, [inside, outside, inside]) == [True, False, True]
    assert not torch.is_inference_mode_enabled()


def test_each_moment_is_divided_among_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(batch_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    clock = SharedClock()
    share, passed, divided = clock.times
    assert divided
    with clock.going():
        clock.count(2)
        now[0] += 6
        assert (share(), passed()) == (3, 6)
        clock.count(3)
        now[0] += 6
        assert (share(), passed()) == (5, 12)
    now[0] += 100
    with clock.going():
        assert (share(), passed()) == (5, 12)
        clock.count(1)
        now[0] += 1
        assert (share(), passed()) == (6, 13)


Fault = Callable[[pytest.MonkeyPatch], None]


def a_gap_is_seen(patch: pytest.MonkeyPatch) -> None:
    masks = BatchRow.masks
    patch.setattr(BatchRow, "masks", lambda row, at, tail: torch.nn.functional.pad(masks(row, at, tail), (0, 1)))


def the_longest_row_is_seen(patch: pytest.MonkeyPatch) -> None:
    masks = BatchRow.masks

    def as_long_as_all(row: BatchRow, at: torch.Tensor, tail: torch.Tensor) -> Any:
        longest = max(other.length for other in row.batch.rows)
        return torch.nn.functional.pad(masks(row, at, tail), (longest - row.length, 0))

    patch.setattr(BatchRow, "masks", as_long_as_all)


def another_rows_slots_move(patch: pytest.MonkeyPatch) -> None:
    move = SlotCache.move
    patch.setattr(SlotCache, "move", lambda cache, row, *slots: move(cache, (row + 1) % SEATS, *slots))


def nothing_moves(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SlotCache, "move", lambda cache, row, *slots: None)


def positions_are_the_first_rows(patch: pytest.MonkeyPatch) -> None:
    forward = CachedModel.forward

    def like_the_first(model: CachedModel, ids: Any, *given: Any, **inputs: Any) -> Any:
        positions = inputs.pop("position_ids", None)
        inputs |= {} if positions is None else {"position_ids": positions[:1].expand_as(positions)}
        return forward(model, ids, *given, **inputs)

    patch.setattr(CachedModel, "forward", like_the_first)


@pytest.mark.parametrize(
    "fault",
    [a_gap_is_seen, the_longest_row_is_seen, another_rows_slots_move, nothing_moves, positions_are_the_first_rows],
)
def test_faults_would_show(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = models("llama")
    texts = texts_of(KARY)
    expected = alone(target, ModelDrafter(draft), texts)
    fault(monkeypatch)
    assert side_by_side(target, ModelDrafter(draft), texts) != expected
