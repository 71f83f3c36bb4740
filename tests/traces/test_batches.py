from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from specdraft.traces.batches import batches, in_memory


def test_texts_of_like_length_go_together() -> None:
    lengths = {"a": 30, "b": 9, "c": 10, "d": 31, "e": 9}
    assert list(batches(lengths, 16, 1000)) == [["b", "e", "c"], ["a", "d"]]
    assert list(batches(lengths, 2, 1000)) == [["b", "e"], ["c", "a"], ["d"]]
    assert list(batches(lengths, 16, 20)) == [["b", "e"], ["c"], ["a"], ["d"]]  # longer ones alone
    assert list(batches({}, 3, 3)) == []


def test_no_more_than_half_of_a_batch_is_padding() -> None:
    short = {str(n): 20 for n in range(7)}
    assert list(batches(short | {"long": 1512}, 16, 10**6)) == [[*short], ["long"]]
    assert list(batches(short | {"long": 45}, 16, 10**6)) == [[*short, "long"][:8]]


WORDS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
    MemoryError("Unable to allocate 9 TiB"),
]


@pytest.mark.parametrize("error", WORDS, ids=["cuda", "cpu", "cpu-mmap", "numpy"])
def test_a_batch_is_halved_where_memory_runs_out(error: Exception) -> None:
    tried: list[list[str]] = []

    def record(some: Sequence[str]) -> Iterator[tuple[str, int]]:
        tried.append(list(some))
        for turn, name in enumerate(some):
            if len(some) > 2 and turn == 1:  # the first is there already
                raise error
            yield name, ord(name)

    assert dict(in_memory(record, list("abcdef"))) == {name: ord(name) for name in "abcdef"}
    assert tried == [list("abcdef"), list("bcd"), ["c"], ["d"], list("ef")]


def test_other_errors_and_single_texts_are_not_tried_again() -> None:
    def record(some: Sequence[str]) -> Iterator[tuple[str, int]]:
        tried.append(list(some))
        raise error
        yield

    for error, some in ((RuntimeError("shapes differ"), "ab"), (MemoryError(), "a")):
        tried: list[list[str]] = []
        with pytest.raises(type(error)):
            list(in_memory(record, list(some)))
        assert tried == [list(some)]
