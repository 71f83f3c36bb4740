"""Block heads made in a test: random ones in each layout, and what they say, spelled out slot by slot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from specdraft.drafters.pair import Pair
from specdraft.models.block_layout import BlockShape, expected_shapes
from specdraft.traces.record import Trajectory
from specdraft.traces.watch import UNWATCHED
from specdraft.training.folder import write_heads
from specdraft.training.loop import train
from specdraft.training.parallel import config_of, parallel_objective, read
from specdraft.training.settings import ParallelTraining
from specdraft.training.states import text_states
from specdraft.training.texts import TrainingText

SHAPE = BlockShape(
    layout="z-lab's",
    width=32,
    inner=40,
    heads=4,
    key_heads=2,
    head_size=10,
    layers=2,
    eps=1e-6,
    theta=500.0,
    read=(1, 2),
    block=5,
    mask=7,
)


def random_block(seed: int = 0, shape: BlockShape = SHAPE) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, size in expected_shapes(shape):
        noise = torch.randn(size, generator=generator)
        made[name] = 1 + 0.3 * noise if "norm" in name else 0.3 * noise
    return made


def layer_keys(shape: BlockShape) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.head_size,
        "num_hidden_layers": shape.layers,
        "rms_norm_eps": shape.eps,
    }


def zlab_config(shape: BlockShape = SHAPE) -> dict[str, Any]:
    inside = {"target_layer_ids": [layer - 1 for layer in shape.read], "mask_token_id": shape.mask}
    return {**layer_keys(shape), "rope_theta": shape.theta, "block_size": shape.block, "dflash_config": inside}


def speculators_config(shape: BlockShape = SHAPE) -> dict[str, Any]:
    rotary = {"rope_theta": shape.theta, "rope_type": "default"}
    return {
        "speculators_model_type": "dflash",
        "transformer_layer_config": {**layer_keys(shape), "rope_parameters": rotary},
        "aux_hidden_state_layer_ids": list(shape.read),
        "mask_token_id": shape.mask,
        "block_size": shape.block,
    }


def save_block(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def learnt_block(
    folder: Path, pair: Pair, prompts: Sequence[Sequence[int]], texts: Sequence[Trajectory], steps: int = 80
) -> Path:
    """A block head of a tiny target that learns a few texts by heart."""
    work = folder / "work"
    work.mkdir(parents=True)
    asked = ParallelTraining(target_layers=[0, 1], steps=steps, positions=256, lr=1e-2)
    whole = [
        TrainingText([*prompt, *text.tokens.tolist()], len(prompt) - 1)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    states = text_states(pair, whole, work, UNWATCHED, read(pair.files.target, asked))
    head, objective = parallel_objective(pair, states, asked)
    train(objective, asked, {}, work, UNWATCHED)
    write_heads(objective.parameters, "float32", config_of(head.shape, 3), folder, "model.safetensors")
    return folder


def normed(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean() + eps) * weight


def turned(x: torch.Tensor, position: int, theta: float) -> torch.Tensor:
    """`[c]` as c / 2 complex numbers, number j turned by position * theta^(-2 j / c)."""
    half = len(x) // 2
    angle = position * theta ** (-torch.arange(half) * 2.0 / len(x))
    whole = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones(half), angle)
    return torch.cat([whole.real, whole.imag])


def block_said(
    tensors: Mapping[str, torch.Tensor],
    model: Any,
    text: Sequence[int],
    root: int,
    shape: BlockShape = SHAPE,
) -> torch.Tensor:
    """`[depths, V]` of a block whose root is at place `root` of a text: loops over slots, heads and what they see."""
    with torch.inference_mode():
        hidden = model(torch.tensor([list(text[:root])]), output_hidden_states=True).hidden_states
    features = [torch.cat([hidden[layer][0, i] for layer in shape.read]) for i in range(root)]
    fused = [normed(tensors["fc.weight"] @ x, tensors["hidden_norm.weight"], shape.eps) for x in features]
    embeddings = model.get_input_embeddings().weight.detach()
    slots = [embeddings[token] for token in (text[root], *[shape.mask] * (shape.block - 1))]
    for number in range(shape.layers):
        part = {name.removeprefix(f"layers.{number}."): tensor for name, tensor in tensors.items()}
        slots = one_layer(part, fused, slots, root, shape)
    out = [normed(slot, tensors["norm.weight"], shape.eps) for slot in slots[shape.first :]]
    return torch.stack([model.lm_head.weight.detach() @ x for x in out])


def one_layer(
    part: Mapping[str, torch.Tensor],
    fused: Sequence[torch.Tensor],
    slots: Sequence[torch.Tensor],
    root: int,
    shape: BlockShape,
) -> list[torch.Tensor]:
    c = shape.head_size
    inside = [normed(slot, part["input_layernorm.weight"], shape.eps) for slot in slots]
    after = []
    for place, (slot, x) in enumerate(zip(slots, inside, strict=True)):
        mixed = []
        for head in range(shape.heads):
            rows = slice(head * c, (head + 1) * c)
            query = normed((part["self_attn.q_proj.weight"] @ x)[rows], part["self_attn.q_norm.weight"], shape.eps)
            query = turned(query, root + place, shape.theta)
            group = head // (shape.heads // shape.key_heads)
            rows = slice(group * c, (group + 1) * c)
            keys, values = [], []
            for position, seen in enumerate([*fused, *inside]):
                key = normed((part["self_attn.k_proj.weight"] @ seen)[rows], part["self_attn.k_norm.weight"], shape.eps)
                keys.append(turned(key, position, shape.theta))
                values.append((part["self_attn.v_proj.weight"] @ seen)[rows])
            weights = torch.softmax(torch.stack([query @ key for key in keys]) / c**0.5, 0)
            mixed.append((weights[:, None] * torch.stack(values)).sum(0))
        state = slot + part["self_attn.o_proj.weight"] @ torch.cat(mixed)
        y = normed(state, part["post_attention_layernorm.weight"], shape.eps)
        gate = part["mlp.gate_proj.weight"] @ y
        inner = gate * torch.sigmoid(gate) * (part["mlp.up_proj.weight"] @ y)
        after.append(state + part["mlp.down_proj.weight"] @ inner)
    return after
