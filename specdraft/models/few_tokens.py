"""The output layer of a few tokens on a processor: the part of a verification step that matrix libraries do worst."""

from __future__ import annotations

from typing import Any

import torch

MOST_TOKENS = 8  # with more, both orders take equally long
FEWEST_IDS = 16_384  # of the layer; a smaller one is no part of the time to speak of
PROBED = 4  # tokens that it is checked on
ROUNDING = 1e-5  # of the largest logit


class FewTokens:
    """Logits as `weight @ states.T`: for 2 to 8 tokens a third to a half of the time of `states @ weight.T`, as BLAS
    packs the side that it takes for the long one.

    Args:
        model: a causal LM of `transformers` with a linear output layer.
    """

    def __init__(self, model: Any) -> None:
        layer = model.get_output_embeddings()
        self._body, self._weight, self._bias = model.base_model, layer.weight, layer.bias
        self._cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    @classmethod
    def of(cls, model: Any) -> FewTokens | None:
        """Of a model for which it does what the model itself does, in float32 on a processor; else None."""
        layer = model.get_output_embeddings()
        if not isinstance(layer, torch.nn.Linear) or layer.weight.shape[0] < FEWEST_IDS:
            return None
        if layer.weight.dtype != torch.float32 or layer.weight.device.type != "cpu":
            return None
        return few if (few := cls(model))._agrees_with(model) else None

    def suits(self, token_ids: torch.Tensor, inputs: Any) -> bool:
        """Whether a forward over `[B, q]` ids is one over a few tokens whose logits are all wanted."""
        return token_ids.shape[0] == 1 and 2 <= token_ids.shape[1] <= MOST_TOKENS and "logits_to_keep" not in inputs

    def forward(self, **inputs: Any) -> Any:
        """What the model gives, its `logits` `[1, q, rows]` among it."""
        out = self._body(**inputs)
        logits = torch.matmul(self._weight, out.last_hidden_state[0].t()).t()
        logits = logits if self._bias is None else logits + self._bias
        out.logits = (logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap)[None]
        return out

    @torch.inference_mode()
    def _agrees_with(self, model: Any) -> bool:
        """Models that scale their logits, say, are decoded by their own forward."""
        inputs = {"input_ids": torch.arange(PROBED, device=model.device)[None], "use_cache": False}
        own = model(**inputs).logits
        return bool((self.forward(**inputs).logits - own).abs().max() <= ROUNDING * own.abs().max())
