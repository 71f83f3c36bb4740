"""How probable a text is to a model: what lossy decoding costs is seen there."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from specdraft.models.language_model import LanguageModel


@torch.inference_mode()
def nll(model: LanguageModel, prompt_ids: Sequence[int], tokens: Sequence[int]) -> float:
    """Minus the sum of the logarithms of the model's probabilities (temperature 1) of a text's tokens after a prompt,
    in nats: one forward without a cache."""
    ids = torch.tensor([[*prompt_ids, *tokens[:-1]]], device=model.device)
    logits, _ = model.forward(ids, logits_to_keep=len(tokens))
    chosen = torch.tensor(tokens, device=model.device)[:, None]
    return -float(torch.log_softmax(logits[0].double(), -1).gather(-1, chosen).sum())
