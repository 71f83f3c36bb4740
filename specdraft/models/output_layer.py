"""A model's output layer on its own: what it makes of the state that it reads."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from specdraft.errors import ModelError
from specdraft.models.language_model import LanguageModel

LAST = -1  # the layer, as `transformers` counts them, whose state the output layer reads: normalised
PROBED = 8  # tokens of the text that it is checked on
TOLERANCE = 1e-2  # of the largest logit: 16-bit models round


class OutputLayer:
    """Logits of states `[..., d]`: `[..., rows]`, one for each row of the output embeddings.

    Gradients go to the states, never to the layer.

    Args:
        model: whose layer.
        name: what the user calls the model.

    Raises:
        ModelError: its logits are something else than its output layer on its last state.
    """

    def __init__(self, model: LanguageModel, name: str) -> None:
        layer = model.model.get_output_embeddings()
        if not isinstance(layer, torch.nn.Linear) or not layer.weight.is_floating_point():
            raise ModelError(
                f"{name}: its output layer is {type(layer).__name__}; a head on its states needs a linear one"
            )
        bias: torch.Tensor | None = layer.bias
        self.weight, self._bias = layer.weight.detach(), None if bias is None else bias.detach()
        self._cap = getattr(model.model.config.get_text_config(), "final_logit_softcapping", None)
        self._check(model, name)

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return int(self.weight.shape[1])

    def __call__(self, states: torch.Tensor, some: torch.Tensor | None = None) -> torch.Tensor:
        """`[..., d]` -> `[..., rows]` float32, on the device of the states; of `some` `[m]` rows only."""
        rows = self if some is None else self.of_rows(some)
        here = states.to(rows.weight.device, rows.weight.dtype)
        return self.capped(F.linear(here, rows.weight, rows._bias).to(states.device).float())

    def of_rows(self, some: torch.Tensor | slice, dtype: torch.dtype | None = None) -> OutputLayer:
        """The layer with these rows only, kept as a copy of its own; `dtype`: of its products."""
        part = copy.copy(self)
        part.weight = self.weight[some].to(dtype)
        part._bias = None if self._bias is None else self._bias[some].to(dtype)
        return part

    def capped(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits as the model caps them, if it does."""
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap

    @torch.inference_mode()
    def _check(self, model: LanguageModel, name: str) -> None:
        ids = torch.arange(PROBED, device=model.device)[None] % model.vocab
        logits, states = model.forward(ids, (LAST,))
        assert states is not None
        apart = (model.of_texts(self(states[:, :, 0])) - logits)[..., : model.vocab].abs().max()
        if not apart <= TOLERANCE * logits[..., : model.vocab].abs().max():
            raise ModelError(
                f"{name}: its logits are not its output layer on its last state (they are scaled, or it is no such "
                "model); a head on its states needs that"
            )
