"""Medusa heads made in a test: random ones in each layout, and ones that were fitted in a moment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from specdraft.models.cached_model import CachedModel
from specdraft.traces.record import Trajectory


def save_heads(
    folder: Path, tensors: Mapping[str, torch.Tensor], name: str = "model.safetensors", **config: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    (folder / "config.json").write_text(json.dumps({"medusa_num_layers": 1} | config))
    return folder


def fitted_heads(
    folder: Path, target: CachedModel, prompts: Sequence[Sequence[int]], texts: Sequence[Trajectory], count: int = 4
) -> Path:
    """Output layers by ridge regression from the state at token i to token i + 2 + head, behind a block that adds
    nothing."""
    width, vocab = target.model.config.hidden_size, target.model.config.vocab_size
    states, following = [], []
    for prompt, text, hidden in zip(
        prompts, texts, target.states_along(prompts, [text.tokens for text in texts], (-1,)), strict=True
    ):
        whole = torch.tensor([*prompt, *text.tokens.tolist()])
        usable = len(whole) - 1 - count
        states.append(hidden[:usable, 0].double())
        following.append(torch.stack([whole[2 + head :][:usable] for head in range(count)], 1))
    x, y = torch.cat(states), torch.cat(following)
    inverse = torch.linalg.inv(x.T @ x + 1e-2 * torch.eye(width, dtype=torch.float64))
    tensors = {}
    for head in range(count):
        at = torch.zeros(vocab, width, dtype=torch.float64).index_add_(0, y[:, head], x)
        tensors |= {f"{head}.0.linear.weight": torch.zeros(width, width), f"{head}.0.linear.bias": torch.zeros(width)}
        tensors[f"{head}.1.weight"] = (5 * at @ inverse).float()
    return save_heads(folder, tensors, "medusa_lm_head.safetensors")
