"""Several texts side by side: recorded token by token, read in slices, or continued by trees.

Letters in shapes: B rows of a batch, q tokens of a row that are fed, S slots of a row that are there already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from specdraft.models.language_model import LanguageModel, padded, tail_mask

LOGITS = {"cpu": 2**22, "cuda": 2**25}  # that are there at a time, whatever the vocabulary: tokens x ids
LEAST_TOKENS = 256  # of a forward that gives logits, however large the vocabulary: fewer do not fill a processor
PREFILL_TOKENS = 4096  # of all rows that one forward reads: it bounds what the layers and the masks hold


class Batch:
    """Prompts of unequal length, continued side by side, without left padding.

    Prompts are padded on the right, new tokens go to common slots behind the longest prompt, and a mask hides the
    padding. Positions are each row's own.

    Args:
        model: the model.
        prompts: token ids.

    Attributes:
        logits: `[B, vocab]` float32 after each prompt's last token.
        prompt_lengths: `[B]` tokens of each prompt, or of what is in the cache instead (see `LanguageModel.starts`);
            `width`: of the longest one.
        slots: how many slots there are behind the prompts.
    """

    @torch.inference_mode()
    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        self._model, self._cache, device = model, model.new_cache(prompts), model.device
        prompts = model.starts(prompts)
        self.prompt_lengths = np.array([len(prompt) for prompt in prompts])
        self._lengths = torch.from_numpy(self.prompt_lengths).to(device)[:, None]
        ids = padded(prompts, device)
        self.width, self.slots = ids.shape[1], 0
        self._positions = torch.arange(self.width, device=device)[None].expand_as(ids)  # [B, slots] of each slot
        self._prompts = self._positions < self._lengths  # [B, width] which of their slots hold a token
        ends, order = (self._lengths[:, 0] - 1).sort()
        at_once = max(1, PREFILL_TOKENS // len(ids))
        runs = range(0, self.width, at_once)
        parts = [self._prefill(ids, slice(first, first + at_once), ends, order) for first in runs]
        self.logits = torch.cat(parts)[order.argsort()]

    def _prefill(self, ids: torch.Tensor, run: slice, ends: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """Read a run of slots: `[rows, vocab]` logits of the rows, in their order, whose prompts end in it."""
        ending = (ends >= run.start) & (ends < run.stop)
        kept, place = torch.unique(ends[ending] - run.start, return_inverse=True)  # of the prompts' last tokens only
        logits, _ = self._model.forward(
            ids[:, run],
            position_ids=self._positions[:, run],
            cache=self._cache,
            logits_to_keep=kept if len(kept) else 1,
        )
        return logits[order[ending], place]

    @torch.inference_mode()
    def append(self, tokens: torch.Tensor, offsets: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Continue every row: `[B, q, vocab]` logits after each of the new tokens.

        Args:
            tokens: `[B, q]` ids.
            offsets: `[B, q]`, or `[1, q]` of all rows alike: positions, counted from the first one after the prompt.
            seen: `[B, q, slots + q]`, or `[1, ...]` of all rows alike: which slots behind the prompts, its own
                included, each token sees. Of the prompt it sees everything.
        """
        positions = self._lengths + offsets
        self._positions = torch.cat([self._positions, positions], 1)
        logits, _ = self._model.forward(
            tokens,
            position_ids=positions,
            attention_mask=additive_masks(self._model, self._visible(seen, len(tokens)), positions, self._positions),
            cache=self._cache,
        )
        self.slots += tokens.shape[1]
        return logits

    def _visible(self, seen: torch.Tensor, rows: int) -> torch.Tensor:
        prompts = self._prompts[:, None].expand(-1, seen.shape[1], -1)
        return torch.cat([prompts, seen.expand(rows, -1, -1)], 2)

    def cache_beside(self, rows: torch.Tensor) -> Any:
        """See `LanguageModel.cache_beside`."""
        return self._model.cache_beside(self._cache, rows)

    def states(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of each layer, `[B, heads, width + slots, d]`."""
        return [(layer.keys, layer.values) for layer in self._cache.layers]


def additive_masks(
    model: LanguageModel, visible: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Additive `[B, 1, q, s]`, for each kind of layer if they differ, of what tokens may see, `[B, q, s]`.

    Args:
        model: the model.
        visible: see above.
        positions: `[B, q]` of the tokens.
        slots: `[B, s]` the positions of what is there, the tokens themselves included.
    """
    return model.placed(tail_mask(visible, model.dtype)[:, None], positions, slots)


def by_device(model: LanguageModel, limits: Mapping[str, int]) -> int:
    """Of limits for a `cpu` and for others (`cuda`), that of the model's device."""
    return limits["cpu" if model.device.type == "cpu" else "cuda"]


def logits_at_once(model: LanguageModel, rows: int) -> int:
    """How many tokens of each row a forward may give the logits of."""
    tokens = by_device(model, LOGITS) // model.width
    return max(1, max(tokens, LEAST_TOKENS) // rows)


def causal(slots: int, count: int, device: torch.device) -> torch.Tensor:
    """`[1, q, slots + q]` for `Batch.append`: every token sees all before it and itself."""
    order = torch.arange(slots + count, device=device)
    return order[None, None, :] <= order[slots:, None]


def along(
    model: LanguageModel, prompts: Sequence[Sequence[int]], texts: Sequence[np.ndarray], at_once: int
) -> Iterator[torch.Tensor]:
    """Teacher-forced: logits before the tokens of recorded texts, `[B, m, vocab]` for the next m positions of all.

    Beyond the end of a text its rows mean nothing. The first slice is position 0, after the prompts.

    Args:
        model: the model.
        prompts: token ids.
        texts: `[T + 1]` the tokens that follow each prompt.
        at_once: the most positions of a slice: it bounds what is held.
    """
    batch, device = Batch(model, prompts), model.device
    tokens = padded([text[:-1].tolist() for text in texts], device)
    yield batch.logits[:, None]
    for first in range(0, tokens.shape[1], at_once):
        some = tokens[:, first : first + at_once]
        offsets = torch.arange(first, first + some.shape[1], device=device)[None]
        yield batch.append(some, offsets, causal(first, some.shape[1], device))
