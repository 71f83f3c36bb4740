"""Texts that are timed side by side, as live decoding in batches has them: what one of them does, all do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from specdraft.decoding.batch import Batch
from specdraft.decoding.seat import Seat
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import Drafter
from specdraft.drafters.pair import Pair

T = TypeVar("T")


class SideBySide:
    """Places for texts. One text has the pair to itself; several have the seats of a `Batch`, where the forwards of one
    model are run as one and all else, such as what heads and look-ups draft, text by text.

    Args:
        pair: target and drafter.
        texts: how many go together.
    """

    def __init__(self, pair: Pair, texts: int) -> None:
        self.texts = texts
        self._alone = Seat(Verifier.of(pair), pair.drafter)
        self._batch: Batch[Any] | None = Batch(pair.target, pair.drafter, texts) if texts > 1 else None

    def each(self, works: Sequence[Callable[[Seat], T]]) -> list[T]:
        """What works come to, each in a place of its own from the first one on, which stays that of the same text."""
        if self._batch is None:
            return [work(self._alone) for work in works]
        ends = sorted(self._batch.decode(works), key=lambda ended: ended.number)
        for ended in ends:
            if ended.error is not None:
                raise ended.error
        results: list[Any] = [ended.result for ended in ends]
        return results

    def all(self, work: Callable[[Seat], T]) -> list[T]:
        """What one work comes to in every place."""
        return self.each([work] * self.texts)

    def first(self, work: Callable[[Seat], T]) -> T:
        """What a work comes to in the first place, while nothing is done in the others."""
        return self.each([work])[0]


def drafter_of(seat: Seat) -> Drafter:
    """That of a place with a pair."""
    assert seat.drafter is not None
    return seat.drafter
