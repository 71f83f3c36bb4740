"""Keys and values that are written behind those that are there: what a cache that copies them holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from specdraft.models import growing_cache
from specdraft.models.growing_cache import GrowingCache

WIDTHS = [(2, 4), (2, 4), (3, 6)]  # heads and width of each layer: the last one is not like the others


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is soon no room."""
    monkeypatch.setattr(growing_cache, "BUCKET", 4)


def feed(caches: list[Any], count: int, generator: torch.Generator) -> None:
    """The same new states to each; what comes back is the same."""
    for number, (heads, width) in enumerate(WIDTHS):
        keys, values = torch.randn(2, 1, heads, count, width, generator=generator)
        said = [cache.update(keys, values, number) for cache in caches]
        assert all(torch.equal(one, other) for one, other in zip(*said, strict=True))


def held(cache: Any) -> list[torch.Tensor]:
    return [states for layer in cache.layers for states in (layer.keys, layer.values)]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(*pair) for pair in zip(held(one), held(other), strict=True))


def test_it_holds_what_a_copying_cache_holds() -> None:
    caches: list[Any] = [GrowingCache(len(WIDTHS)), DynamicCache()]
    generator = torch.Generator().manual_seed(0)
    for count, dropped in [(3, 0), (2, 1), (6, 4), (1, 0), (9, 9), (2, 0)]:
        feed(caches, count, generator)
        for cache in caches:
            cache.crop(-dropped)
        assert same(*caches)
        assert {cache.get_seq_length() for cache in caches} == {caches[0].layers[2].get_seq_length()}


def test_slots_are_moved_in_every_layer() -> None:
    cache = GrowingCache(len(WIDTHS))
    feed([cache, DynamicCache()], 7, torch.Generator().manual_seed(0))
    before = [states.clone() for states in held(cache)]
    cache.move(torch.tensor([3, 6]), 2)
    for states, was in zip(held(cache), before, strict=True):
        assert torch.equal(states, was[:, :, [0, 1, 3, 6, 4, 5, 6]])
    cache.move(torch.tensor([3, 4, 5]), 2)  # slots that others take in the same move
    for states, was in zip(held(cache), before, strict=True):
        assert torch.equal(states, was[:, :, [0, 1, 6, 4, 5, 5, 6]])


def test_rows_are_repeated() -> None:
    caches: list[Any] = [GrowingCache(len(WIDTHS)), DynamicCache()]
    feed(caches, 5, torch.Generator().manual_seed(0))
    for cache in caches:
        cache.batch_repeat_interleave(3)
    assert same(*caches) and caches[0].layers[0].keys.shape[0] == 3
    caches[0].crop(-2)
    assert caches[0].layers[2].keys.shape == (3, 3, 3, 6)


def test_an_empty_one() -> None:
    cache = GrowingCache(2)
    cache.crop(-3)
    with pytest.raises(ValueError, match="counted below 0"):
        cache.crop(1)
    cache.move(torch.tensor([1]), 0)
    cache.batch_repeat_interleave(2)
    assert cache.get_seq_length() == 0 and not cache.layers[0].is_initialized


def held_numbers(cache: GrowingCache) -> int:
    return sum(room._all.numel() for room in cache._rooms)


def test_it_takes_room_for_what_is_there() -> None:
    cache, beside = GrowingCache(5), DynamicCache()  # two layers read those of others
    generator = torch.Generator().manual_seed(0)
    feed([cache, beside], 6, generator)
    of_token = 2 * sum(heads * width for heads, width in WIDTHS)
    assert held_numbers(cache) == 6 * of_token
    feed([cache, beside], 1, generator)
    assert held_numbers(cache) == 8 * of_token  # a bucket more
    assert len([*cache._rooms]) == 4  # two layers together, one alone
