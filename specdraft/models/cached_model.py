"""The cached tree-forward that drafter and verifier share.

Slots of the cache are *committed* (slot i holds the token at position i) or *pending* (appended since
the last commit: nodes of the tree in work). Every query sees all committed slots; which pending slots
it sees is the tree's business. A mask is additive, in the model's type, because that is the one form
that eager and SDPA attention read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from specdraft.models.language_model import Forward, LanguageModel
from specdraft.models.sending import to_device
from specdraft.models.tree_attention import TAIL, tails

if TYPE_CHECKING:
    from specdraft.attention.tree_decode import Tail


class CachedModel(LanguageModel):
    """A causal model with the key-value cache of one sequence."""

    def __init__(self, model: Any, vocab: int, text_vocab: int | None = None) -> None:
        super().__init__(model, vocab, text_vocab)
        self.reset()

    def reset(self) -> None:
        """Forget the sequence."""
        self._cache = self._sequence()
        self._pending_positions = torch.empty(0, dtype=torch.long, device=self.device)
        self.length = 0  # committed slots

    def _sequence(self, prompts: Sequence[Sequence[int]] = ()) -> Any:
        """The empty cache of what follows a prompt."""
        from specdraft.models.growing_cache import GrowingCache

        return GrowingCache(int(self.model.config.get_text_config().num_hidden_layers))

    @property
    def pending(self) -> int:
        """Slots appended since the last commit."""
        return self._pending_positions.shape[0]

    def another(self) -> CachedModel:
        """The same model with a cache of its own, which grows."""
        return CachedModel(self.model, self.vocab, self.width)

    @torch.inference_mode()
    def prefill(self, token_ids: Sequence[int], layers: Sequence[int] = ()) -> Forward:
        """Commit a run of tokens after what is committed: `[vocab]` logits after the last one, states of all of them.
        The first run is a prompt.

        Args:
            token_ids: the run.
            layers: whose states are wanted.
        """
        if not self.length:
            self._cache, (token_ids,) = self._sequence([token_ids]), self.starts([token_ids])
        tokens = torch.tensor([list(token_ids)], device=self.device)
        positions = torch.arange(self.length, self.length + tokens.shape[1], device=self.device)[None]
        logits, hidden = self.forward(tokens, layers, position_ids=positions, cache=self._cache, logits_to_keep=1)
        self.length += tokens.shape[1]
        return Forward(logits[0, -1], None if hidden is None else hidden[0])

    @torch.inference_mode()
    def append(
        self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor, layers: Sequence[int] = ()
    ) -> Forward:
        """One forward over new pending tokens: `[q, vocab]` logits after each.

        Args:
            tokens: `[q]` token ids on this device.
            offsets: `[q]` positions, counted from the first one after the committed tokens.
            tail: `[q, pending + q]` additive mask over the pending slots and the new ones.
            layers: whose states are wanted.
        """
        positions = offsets + self.length
        logits, hidden = self.forward(
            tokens[None],
            layers,
            position_ids=positions[None],
            attention_mask=self._masks(positions, tail),
            cache=self._cache,
            **self._tails(tail),
        )
        self._pending_positions = torch.cat([self._pending_positions, positions])
        return Forward(logits[0], None if hidden is None else hidden[0])

    def _tails(self, tail: torch.Tensor) -> dict[str, Tail]:
        """What a kernel is given beside the mask; nothing where there is none."""
        return {TAIL: tails([tail], [self.length], self.length)} if self.takes_tails else {}

    def _masks(self, positions: torch.Tensor, tail: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        full = F.pad(tail, (self.length, 0))[None, None]
        if not self.places_matter:
            return full
        slots = torch.cat([torch.arange(self.length, device=self.device), self._pending_positions, positions])
        return self.placed(full, positions[None], slots[None])

    def extend(self, token: int) -> torch.Tensor:
        """Commit one more token: `[vocab]` logits after it, from the same masked forward as a tree's."""
        next_position = torch.zeros(1, dtype=torch.long, device=self.device)
        sees_itself = torch.zeros(1, 1, dtype=self.dtype, device=self.device)
        logits = self.append(to_device([token], self.device), next_position, sees_itself).logits
        self.commit([0])
        return logits[-1]

    def settle(self, count: int) -> None:
        """The first `count` pending slots are committed tokens after all; the others stay pending."""
        self.length += count
        self._pending_positions = self._pending_positions[count:]

    @torch.inference_mode()
    def forget(self, kept: int) -> None:
        """Drop the pending slots after the first `kept`."""
        self._drop(self.pending - kept)
        self._pending_positions = self._pending_positions[:kept]

    @torch.inference_mode()
    def rewind(self, length: int) -> None:
        """Keep the first `length` committed slots only."""
        self._drop(self.length + self.pending - length)
        self.length, self._pending_positions = length, self._pending_positions[:0]

    @torch.inference_mode()
    def commit(self, slots: Sequence[int]) -> None:
        """Keep these pending slots, in this order, as the next committed ones; drop the others."""
        kept = len(slots)
        if list(slots) != list(range(kept)):
            self._gather(slots)
        self._drop(self.pending - kept)
        self.length += kept
        self._pending_positions = self._pending_positions[:0]

    def _drop(self, count: int) -> None:
        """Forget what the last `count` slots hold."""
        self._cache.crop(-count)

    def _gather(self, slots: Sequence[int]) -> None:
        """What these pending slots hold is held by the first pending ones."""
        self._cache.move(to_device(slots, self.device) + self.length, self.length)
