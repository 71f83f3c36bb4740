"""Heads that read paths, made in a test: what they say, spelled out for one path, and ones fitted in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from specdraft.models.cached_model import CachedModel
from specdraft.traces.record import Trajectory

Tensors = dict[str, torch.Tensor]
Inner = Callable[[Mapping[str, torch.Tensor], torch.Tensor, list[torch.Tensor]], torch.Tensor]


def silu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


def hydra_inner(tensors: Mapping[str, torch.Tensor], state: torch.Tensor, path: list[torch.Tensor]) -> torch.Tensor:
    """What the output layer of a head reads, of a state and the embeddings of a path."""
    head, x = f"hydra_mlp.{len(path) - 1}", torch.cat([state, *path])
    inside = tensors[f"{head}.0.linear.weight"] @ x + tensors[f"{head}.0.linear.bias"]
    x = tensors[f"{head}.0.res_connection.weight"] @ x + tensors[f"{head}.0.res_connection.bias"] + silu(inside)
    for block in range(1, 9):
        if f"{head}.{block}.linear.weight" in tensors:
            x = x + silu(tensors[f"{head}.{block}.linear.weight"] @ x + tensors[f"{head}.{block}.linear.bias"])
    return x


def hydra_said(tensors: Mapping[str, torch.Tensor], state: torch.Tensor, path: list[torch.Tensor]) -> torch.Tensor:
    output = f"hydra_lm_head.{len(path) - 1}"
    return tensors[f"{output}.weight"] @ hydra_inner(tensors, state, path) + tensors[f"{output}.bias"]


def redrafter_inner(tensors: Mapping[str, torch.Tensor], state: torch.Tensor, path: list[torch.Tensor]) -> torch.Tensor:
    cell = torch.zeros_like(state)
    for embedded in path:
        if "rnn_w.weight" in tensors:
            cell = silu(tensors["rnn_w.weight"] @ embedded + tensors["rnn_u.weight"] @ cell + tensors["rnn_u.bias"])
        else:
            cell = cell + embedded
    x = torch.cat([state, cell])
    if "input_proj.weight" in tensors:
        x = tensors["input_proj.weight"] @ x + tensors["input_proj.bias"]
    for block in range(9):
        if f"lm_head.{block}.linear.weight" in tensors:
            x = x + silu(tensors[f"lm_head.{block}.linear.weight"] @ x + tensors[f"lm_head.{block}.linear.bias"])
    return x


def redrafter_said(tensors: Mapping[str, torch.Tensor], state: torch.Tensor, path: list[torch.Tensor]) -> torch.Tensor:
    (output,) = (tensor for name, tensor in tensors.items() if name.startswith("lm_head.") and "linear" not in name)
    return output @ redrafter_inner(tensors, state, path)


def random_hydra(width: int, vocab: int, heads: int = 3, blocks: int = 2) -> Tensors:
    """In the authors' layout, with output layers of its own."""
    generator = torch.Generator().manual_seed(0)

    def random(*size: int, scale: float = 0.2) -> torch.Tensor:
        return scale * torch.randn(*size, generator=generator)

    made = {}
    for head in range(heads):
        for block in range(blocks):
            inside = width if block else (head + 2) * width
            for part in ("linear",) if block else ("linear", "res_connection"):
                made[f"hydra_mlp.{head}.{block}.{part}.weight"] = random(width, inside)
                made[f"hydra_mlp.{head}.{block}.{part}.bias"] = random(width)
        made[f"hydra_lm_head.{head}.weight"], made[f"hydra_lm_head.{head}.bias"] = random(vocab, width), random(vocab)
    return made


def random_redrafter(width: int, vocab: int, inner: int, blocks: int = 2, rnn: bool = True) -> Tensors:
    """In the authors' layout, with an output layer of its own."""
    generator = torch.Generator().manual_seed(0)

    def random(*size: int, scale: float = 0.3) -> torch.Tensor:
        return scale * torch.randn(*size, generator=generator)

    made = {}
    if rnn:
        made |= {f"rnn_{part}.weight": random(width, width) for part in "wu"} | {"rnn_u.bias": random(width)}
    if inner != 2 * width:
        made |= {"input_proj.weight": random(inner, 2 * width), "input_proj.bias": random(inner)}
    for block in range(blocks):
        made[f"lm_head.{block}.linear.weight"] = random(inner, inner, scale=0.1)
        made[f"lm_head.{block}.linear.bias"] = random(inner)
    made[f"lm_head.{blocks}.weight"] = random(vocab, inner)
    return made


def redrafter_config(width: int, inner: int, blocks: int = 2, rnn: bool = True) -> dict[str, Any]:
    return {"hidden_size": width, "exit_dim": inner, "num_draft_layers": blocks, "rnn": rnn}


def save_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def fitted_path_heads(
    folder: Path, kind: str, target: CachedModel, prompts: Sequence[Sequence[int]], texts: Sequence[Trajectory]
) -> Path:
    """Four Hydra heads, or a recurrent one, that know some texts by heart."""
    width, rows = target.model.config.hidden_size, target.model.config.vocab_size
    if kind == "hydra":
        tensors = random_hydra(width, rows, heads=4, blocks=1)
        tensors = {name: 0 * tensor if "lm_head" in name else tensor for name, tensor in tensors.items()}
        outputs = [f"hydra_lm_head.{head}.weight" for head in range(4)]
        return save_tensors(folder, fitted(tensors, hydra_inner, outputs, target, prompts, texts), {})
    tensors = random_redrafter(width, rows, 2 * width, 0)
    tensors = fitted(tensors, redrafter_inner, ["lm_head.0.weight"], target, prompts, texts)
    return save_tensors(folder, tensors, redrafter_config(width, 2 * width, 0))


def fitted(
    tensors: Tensors,
    inner: Inner,
    outputs: Sequence[str],
    target: CachedModel,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Trajectory],
    depths: int = 4,
) -> Tensors:
    """The tensors with output layers by ridge regression: one for each depth, or one for all."""
    embed = target.model.get_input_embeddings().weight.detach()
    read: list[list[torch.Tensor]] = [[] for _ in range(depths)]
    following: list[list[int]] = [[] for _ in range(depths)]
    hidden = target.states_along(prompts, [text.tokens for text in texts], (-1,))
    for prompt, text, states in zip(prompts, texts, hidden, strict=True):
        whole = [*prompt, *text.tokens.tolist()]
        for root in range(len(prompt), len(whole) - depths):
            for depth in range(depths):
                path = [embed[token] for token in whole[root : root + depth + 1]]
                read[depth].append(inner(tensors, states[root - 1, 0], path))
                following[depth].append(whole[root + depth + 1])
    if len(outputs) == 1:
        read, following = [list(chain(*read))], [list(chain(*following))]
    made = dict(tensors)
    for name, given, wanted in zip(outputs, read, following, strict=True):
        x = torch.stack(given).double()
        inverse = torch.linalg.inv(x.T @ x + 1e-2 * torch.eye(x.shape[1], dtype=torch.float64))
        at = torch.zeros(len(embed), x.shape[1], dtype=torch.float64).index_add_(0, torch.tensor(wanted), x)
        made[name] = (5 * at @ inverse).float()
    return made
