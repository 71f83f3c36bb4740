"""One sequence whose states stand in slots that are there before it begins."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import Forward, tail_mask


class SlotRow(CachedModel):
    """A `CachedModel` that reads its prompt by itself; the states then fill slots, of which what is dropped is
    overwritten.

    Args:
        of: the model whose weights it has; that one's own sequence is left alone.
    """

    def __init__(self, of: CachedModel) -> None:
        self._of = of
        super().__init__(of.model, of.vocab, of.width)

    def forward(self, token_ids: torch.Tensor, *given: Any, **inputs: Any) -> tuple[torch.Tensor, Any]:
        """See `LanguageModel.forward`: as the model does it whose weights it has."""
        return self._of.forward(token_ids, *given, **inputs)

    def prefill(self, token_ids: Sequence[int], layers: Sequence[int] = ()) -> Forward:
        """See `CachedModel.prefill`: what comes after the first run of tokens is appended as a chain."""
        if not self.length:
            return self._begin(token_ids, layers)
        tokens = torch.tensor(list(token_ids), device=self.device)
        order = torch.arange(len(tokens), device=self.device)
        said = self.append(tokens, order, tail_mask(order[:, None] >= order, self.dtype), layers)
        self.settle(len(tokens))
        return said._replace(logits=said.logits[-1])

    def _begin(self, token_ids: Sequence[int], layers: Sequence[int]) -> Forward:
        """See `CachedModel.prefill`, of an empty sequence."""
        said = super().prefill(token_ids, layers)
        self._cache = self._filled(self._cache)
        return said

    @abstractmethod
    def _filled(self, states: Any) -> Any:
        """The slots, which begin with what another cache holds."""

    def _drop(self, count: int) -> None:
        """See `CachedModel._drop`: slots beyond the last one are never seen."""
