"""A target that remembers its states along texts: read once, however often a drafter asks for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from specdraft.models.cached_model import CachedModel

Along = tuple[tuple[int, ...], bytes, tuple[int, ...]]  # a prompt, what follows it, and the layers


class RememberingModel(CachedModel):
    """See `LanguageModel.states_along`; states stay on the model's device."""

    def __init__(self, model: CachedModel) -> None:
        super().__init__(model.model, model.vocab, model.width)
        self._states: dict[Along, torch.Tensor] = {}

    def states_along(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[np.ndarray], layers: Sequence[int]
    ) -> list[torch.Tensor]:
        """See `LanguageModel.states_along`."""
        keys = [(tuple(p), text.tobytes(), tuple(layers)) for p, text in zip(prompts, texts, strict=True)]
        if not self._states.keys() >= set(keys):
            self._states |= dict(zip(keys, super().states_along(prompts, texts, layers), strict=True))
        return [self._states[key] for key in keys]
