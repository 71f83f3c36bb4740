"""What costs are those of: how many tokens are committed, and how many texts go together."""

from __future__ import annotations

from typing import NamedTuple

from specdraft.drafters.pair import PairFiles

PREFIX = 128  # committed tokens, where nobody says otherwise


class CostPoint(NamedTuple):
    """Committed tokens of each text, and texts in a batch."""

    context: int = PREFIX
    batch: int = 1

    def __str__(self) -> str:
        return f"at context {self.context}, batch {self.batch}"

    def of(self, pair: str) -> str:
        """What a pair's costs here are called: as the pair where nobody says otherwise."""
        return pair if self == CostPoint() else f"{pair} {self}"


USUAL = CostPoint()


def no_room(files: PairFiles, point: CostPoint, largest: int) -> str | None:
    """Why a pair cannot be measured at a point with trees of `largest` tokens; None: it can. The usual point makes do
    with less."""
    if point == USUAL:
        return None
    if point.batch > 1 and files.target.encodes:
        return f"cost.batch={point.batch} is for decoder-only models, and the target is an encoder-decoder"
    said = f"cost.context={point.context} cost.batch={point.batch}"
    room = files.context_length
    if room is not None and point.context + largest > room:
        return f"{said}: with {largest} tokens of a tree it exceeds the context of {room}"
    from specdraft.models.placement import resolve_device
    from specdraft.models.self_check import free_memory
    from specdraft.models.sizes import gib, model_size

    sizes = [model_size(model) for model in files.models]
    needed = point.batch * sum((point.context + largest) * s.state_bytes + largest * s.logits_bytes for s in sizes)
    free = free_memory(resolve_device(files.target.spec))
    return f"{said}: caches and logits take {gib(needed)}, and {gib(free)} are free" if needed > free else None
