"""How probable a text is to a model: what lossy decoding costs is seen there."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from specdraft.models.language_model import LanguageModel


@torch.inference_mode()
def nll(model: LanguageModel, prompt_ids: Sequence[int], tokens: Sequence[int]) -> float:
    """Minus the sum of the logarithms of the model's probabilities (temperature 1) of a text's tokens after a prompt,
    in nats: one forward without a cache."""
    logits = model.along(prompt_ids, tokens[:-1], len(tokens))
    chosen = torch.tensor(tokens, device=model.device)[:, None]
    return -float(torch.log_softmax(logits.double(), -1).gather(-1, chosen).sum())
