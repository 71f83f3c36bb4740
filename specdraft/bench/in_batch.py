"""A pair that does for a batch what it does for one text: its rows all hold the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch

from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import Forward


class InRows(CachedModel):
    """A model over a batch of equal rows, with a cache of its own: what it gives is the first row's.

    Args:
        model: whose forward it is.
        rows: of the batch.
    """

    def __init__(self, model: CachedModel, rows: int) -> None:
        self._of, self._rows = model, rows
        super().__init__(model.model, model.vocab, model.width)

    def reset(self) -> None:
        """See `CachedModel.reset`."""
        super().reset()
        self._filled = 1  # rows of the cache

    def prefill(self, token_ids: Sequence[int], layers: Sequence[int] = ()) -> Forward:
        """See `CachedModel.prefill`: the first run of tokens is read once, and its states are repeated."""
        forward = super().prefill(token_ids, layers)
        if self._filled < self._rows:
            self._cache.batch_repeat_interleave(self._rows)
            self._filled = self._rows
        return forward

    def forward(self, token_ids: torch.Tensor, layers: Sequence[int] = (), **inputs: Any) -> tuple[torch.Tensor, Any]:
        """See `LanguageModel.forward`: of all rows."""
        positions = inputs.pop("position_ids").expand(self._filled, -1)
        return self._of.forward(token_ids.expand(self._filled, -1), layers, position_ids=positions, **inputs)


def in_batch(pair: Pair, rows: int) -> Pair:
    """The pair in a batch of so many rows. A draft model works on all of them; heads, and drafters that look tokens up,
    on one: what they take is little of a batch's time."""
    if rows == 1:
        return pair
    drafter = pair.drafter
    if isinstance(drafter, ModelDrafter):
        drafter = copy(drafter)
        drafter.model = InRows(drafter.model, rows)
    return Pair(pair.files, InRows(pair.target, rows), drafter, pair.target_check)
