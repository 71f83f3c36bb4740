"""Models that look their logits up by what they are let see: exact, fast, and they notice a wrong mask or position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from specdraft.models.cached_model import CachedModel
from specdraft.models.gate import AttentionLayout
from specdraft.models.language_model import Forward

Prefix = tuple[int, ...]
Logits = Callable[[Prefix], torch.Tensor]


def random_logits(vocab: int, seed: int, likeness: float = 0.5) -> tuple[Logits, Logits]:
    """A target's and a draft's `[vocab]` float64 logits after each prefix; float32 holds them exactly."""

    @cache
    def both(prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(hash((seed, *prefix)) % 2**31)
        target, other = 1.5 * torch.randn(2, vocab, generator=generator, dtype=torch.float64)
        return target.float().double(), (likeness * target + (1 - likeness) * other).float().double()

    return lambda prefix: both(prefix)[0], lambda prefix: both(prefix)[1]


class TableModel(CachedModel):
    """A `CachedModel` whose cache is a list of tokens."""

    def __init__(self, logits: Logits, vocab: int) -> None:
        self.logits, self.vocab = logits, vocab
        self.device, self.dtype, self.width = torch.device("cpu"), torch.float64, vocab
        self.layout = AttentionLayout(None, mixed=False)
        self.reset()

    def reset(self) -> None:
        self.slots: list[int] = []
        self._pending_positions = torch.empty(0, dtype=torch.long)
        self.length = 0

    def prefill(self, token_ids: Sequence[int], layers: Sequence[int] = ()) -> Forward:
        self.slots += token_ids
        self.length += len(token_ids)
        return Forward(self.logits(tuple(self.slots)))

    def append(
        self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor, layers: Sequence[int] = ()
    ) -> Forward:
        self.slots += tokens.tolist()
        self._pending_positions = torch.cat([self._pending_positions, offsets + self.length])
        assert tail.shape == (len(tokens), self.pending)
        rows = zip(tail, offsets, strict=True)
        return Forward(torch.stack([self._after(row == 0, int(offset)) for row, offset in rows]))

    def _after(self, seen: torch.Tensor, offset: int) -> torch.Tensor:
        places = [
            (int(self._pending_positions[slot]), self.slots[self.length + slot])
            for slot in seen.nonzero()[:, 0].tolist()
        ]
        ordered = sorted(places)
        assert [position for position, _ in ordered] == list(range(self.length, self.length + offset + 1))
        return self.logits((*self.slots[: self.length], *(token for _, token in ordered)))

    def forget(self, kept: int) -> None:
        del self.slots[self.length + kept :]
        self._pending_positions = self._pending_positions[:kept]

    def commit(self, slots: Sequence[int]) -> None:
        self.slots = self.slots[: self.length] + [self.slots[self.length + slot] for slot in slots]
        self.length += len(slots)
        self._pending_positions = self._pending_positions[:0]

    def rewind(self, length: int) -> None:
        del self.slots[length:]
        self.length, self._pending_positions = length, self._pending_positions[:0]

    def forward(self, token_ids: torch.Tensor, layers: Sequence[int] = (), **inputs: Any) -> tuple[torch.Tensor, None]:
        """Without a cache: of the last `logits_to_keep` tokens."""
        if inputs.get("cache") is not None:
            return self._side_by_side(token_ids, **inputs), None
        width, keep = token_ids.shape[1], inputs["logits_to_keep"]
        kept = range(width - keep + 1, width + 1)
        texts = token_ids.tolist()
        return torch.stack([torch.stack([self.logits(tuple(text[:n])) for n in kept]) for text in texts]), None

    def _side_by_side(
        self,
        token_ids: torch.Tensor,
        position_ids: torch.Tensor,
        cache: Any,
        attention_mask: torch.Tensor | None = None,
        logits_to_keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`[B, kept, vocab]` of a `Batch`; its cache holds the tokens and their positions."""
        rows, count = token_ids.shape
        states = torch.stack([token_ids, position_ids.expand(rows, -1)], -1)[:, None].double()  # [B, 1, q, 2]
        held, _ = cache.update(states, states, 0)
        seen = (
            torch.ones(count, held.shape[2]).tril(held.shape[2] - count).bool().expand(rows, -1, -1)
            if attention_mask is None
            else attention_mask[:, 0] == 0
        )
        kept = range(count) if logits_to_keep is None else logits_to_keep.tolist()
        return torch.stack([torch.stack([self._read(held[b, 0], seen[b, q]) for q in kept]) for b in range(rows)])

    def _read(self, held: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        ordered = sorted((int(position), int(token)) for token, position in held[seen].tolist())
        assert [position for position, _ in ordered] == list(range(len(ordered)))
        return self.logits(tuple(token for _, token in ordered))
