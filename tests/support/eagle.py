"""EAGLE heads made in a test: random ones in each layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from specdraft.models.eagle_head import EagleHead
from specdraft.models.eagle_layout import EagleShape, rotary_frequencies

WIDTH = 32
SHAPE = EagleShape(
    version=3,
    width=WIDTH,
    inner=48,
    heads=4,
    key_heads=2,
    head_size=8,
    layers=1,
    eps=1e-6,
    frequencies=rotary_frequencies(8, 10000.0),
    rotary_scale=1.0,
    target_width=WIDTH,
    features=3,
)
FIRST = replace(SHAPE, version=1, features=1, final_norm=False)
INSIDE = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-6}
CONFIG = {**INSIDE, "eagle_aux_hidden_state_layer_ids": [0, 1, 2]}
LAYOUTS = {
    "authors1": (FIRST, {}, INSIDE),
    "speculators1": (
        FIRST,
        {"layers.0.": "transformer.", "fc.": "fusion_fc."},
        {"speculators_model_type": "eagle", "transformer_layer_config": INSIDE},
    ),
    "authors3": (SHAPE, {"layers.0.": "midlayer."}, CONFIG),
    "speculators3": (
        SHAPE,
        {},
        {
            "speculators_model_type": "eagle3",
            "transformer_layer_config": INSIDE,
            "eagle_aux_hidden_state_layer_ids": [0, 1, 2],
        },
    ),
}


def random_head(shape: EagleShape, seed: int = 0) -> EagleHead:
    """Whose attention, MLP and norms all matter."""
    torch.manual_seed(seed)
    head = EagleHead(shape)
    for name, parameter in head.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.4)
        elif "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter)
    return head.eval().requires_grad_(False)


def save_eagle(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def renamed(tensors: Mapping[str, torch.Tensor], prefixes: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """The head's own names as a layout has them."""
    named = {}
    for name, tensor in tensors.items():
        ours = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        named[prefixes.get(ours, "") + name.removeprefix(ours)] = tensor
    return named


def echoing_head(folder: Path) -> Path:
    """An EAGLE-1 head that says again what the target said last."""
    head = random_head(FIRST)
    for parameter in head.parameters():
        parameter.zero_()
    head.fc.weight[:, WIDTH:] = torch.eye(WIDTH)
    return save_eagle(folder, head.state_dict(), INSIDE)
