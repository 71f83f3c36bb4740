"""Which texts go through the models side by side: of like length, and as many as memory has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from specdraft.models.memory import free_cached, out_of_memory

ROWS = {"cpu": 16, "cuda": 64}  # texts of a batch at most, by kind of device
READ_TOKENS = 8192  # of a batch that is read, not continued: more make no forward any faster
Trace = TypeVar("Trace")
Record = Callable[[Sequence[str]], Iterator[tuple[str, Trace]]]


def most_rows(device: str) -> int:
    """How many texts a kind of device takes side by side."""
    return ROWS["cpu" if device == "cpu" else "cuda"]


def batches(lengths: Mapping[str, int], rows: int, tokens: int) -> Iterator[list[str]]:
    """Texts of like length, shortest first.

    Args:
        lengths: tokens of each text.
        rows: the most texts of a batch.
        tokens: the most tokens of a batch, padding included; a longer text is a batch of its own. Nor is more than
            half of a batch padding.
    """
    batch: list[str] = []
    total = 0
    for name in sorted(lengths, key=lengths.__getitem__):
        padded, total = (len(batch) + 1) * lengths[name], total + lengths[name]
        if batch and (len(batch) == rows or padded > tokens or padded > 2 * total):
            yield batch
            batch, total = [], lengths[name]
        batch.append(name)
    if batch:
        yield batch


def in_memory(record: Record[Trace], some: Sequence[str]) -> Iterator[tuple[str, Trace]]:
    """Record a batch; where memory runs out, what is left of it in halves."""
    left = list(some)
    try:
        for name, trace in record(some):
            left.remove(name)
            yield name, trace
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error) or len(some) == 1:
            raise
    if left:
        free_cached()
    half = (len(left) + 1) // 2
    for part in (left[:half], left[half:]):
        if part:
            yield from in_memory(record, part)
