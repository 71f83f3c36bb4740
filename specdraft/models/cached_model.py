"""The cached tree-forward that drafter and verifier share.

Slots of the cache are *committed* (slot i holds the token at position i) or *pending* (appended since
the last commit: nodes of the tree in work). Every query sees all committed slots; which pending slots
it sees is the tree's business. A mask is additive, in the model's type, because that is the one form
that eager and SDPA attention read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from specdraft.models.gate import attention_layout


def tail_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`[q, p]` bool -> additive: 0 where visible, the type's minimum elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, torch.finfo(dtype).min)


class CachedModel:
    """One causal model with the key-value cache of one sequence.

    Args:
        model: a `transformers` causal LM that passed the gate.
        vocab: logits are cut to this many ids.
    """

    def __init__(self, model: Any, vocab: int) -> None:
        self.model, self.vocab = model, vocab
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.dtype: torch.dtype = model.dtype
        self._layout = attention_layout(model.config)
        self.reset()

    def reset(self) -> None:
        """Forget the sequence."""
        self._cache = DynamicCache()
        self._pending_positions = torch.empty(0, dtype=torch.long, device=self.device)
        self.length = 0  # committed slots

    @property
    def pending(self) -> int:
        """Slots appended since the last commit."""
        return self._pending_positions.shape[0]

    @torch.inference_mode()
    def prefill(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Commit a run of tokens after what is committed; `[vocab]` logits after the last one."""
        tokens = torch.tensor([list(token_ids)], device=self.device)
        positions = torch.arange(self.length, self.length + tokens.shape[1], device=self.device)[None]
        out = self.model(
            input_ids=tokens, position_ids=positions, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        self.length += tokens.shape[1]
        logits: torch.Tensor = out.logits[0, -1, : self.vocab].float()
        return logits

    @torch.inference_mode()
    def append(self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        """One forward over new pending tokens.

        Args:
            tokens: `[q]` token ids on this device.
            offsets: `[q]` positions, counted from the first one after the committed tokens.
            tail: `[q, pending + q]` additive mask over the pending slots and the new ones.

        Returns:
            `[q, vocab]` logits in float32.
        """
        positions = offsets + self.length
        masks = self._masks(positions, tail)
        out = self.model(
            input_ids=tokens[None],
            position_ids=positions[None],
            attention_mask=masks,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._pending_positions = torch.cat([self._pending_positions, positions])
        logits: torch.Tensor = out.logits[0, :, : self.vocab].float()
        return logits

    def _masks(self, positions: torch.Tensor, tail: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        full = F.pad(tail, (self.length, 0))[None, None]
        if self._layout.window is None:
            return full
        slots = torch.cat([torch.arange(self.length, device=self.device), self._pending_positions, positions])
        outside = positions[:, None] - slots[None] >= self._layout.window
        sliding = full.masked_fill(outside[None, None], torch.finfo(self.dtype).min)
        return {"full_attention": full, "sliding_attention": sliding} if self._layout.mixed else sliding

    def settle(self, count: int) -> None:
        """The first `count` pending slots are committed tokens after all; the others stay pending."""
        self.length += count
        self._pending_positions = self._pending_positions[count:]

    @torch.inference_mode()
    def forget(self, kept: int) -> None:
        """Drop the pending slots after the first `kept`."""
        self._cache.crop(kept - self.pending)
        self._pending_positions = self._pending_positions[:kept]

    @torch.inference_mode()
    def rewind(self, length: int) -> None:
        """Keep the first `length` committed slots only."""
        self._cache.crop(length - self.length - self.pending)
        self.length, self._pending_positions = length, self._pending_positions[:0]

    @torch.inference_mode()
    def commit(self, slots: Sequence[int]) -> None:
        """Keep these pending slots, in this order, as the next committed ones; drop the others."""
        kept = len(slots)
        if list(slots) != list(range(kept)):
            rows = torch.tensor(slots, device=self.device) + self.length
            for layer in self._cache.layers:
                for states in (layer.keys, layer.values):
                    states[:, :, self.length : self.length + kept] = states[:, :, rows.to(states.device)]
        self._cache.crop(kept - self.pending)
        self.length += kept
        self._pending_positions = self._pending_positions[:0]
