"""Hydra heads in memory: `U (R x + r + SiLU(W x + b))` on the target's last state and the path's tokens side by side
(Ankner et al. 2024, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from specdraft.drafters.base import Target
from specdraft.drafters.hydra import Hydra
from specdraft.drafters.loaded.by_offset import Known
from specdraft.drafters.loaded.head_tensors import described, head_tensors
from specdraft.drafters.loaded.last_state import check_wiring
from specdraft.drafters.loaded.medusa import Block, Output, OwnLayer
from specdraft.drafters.loaded.path_wise import PathWiseDrafter
from specdraft.models.cached_model import CachedModel
from specdraft.models.head_files import HeadFiles
from specdraft.models.hydra_layout import HydraHeadNames
from specdraft.models.output_layer import OutputLayer


class Narrowing(NamedTuple):
    """`R x + r + SiLU(W x + b)`: `weight` and `around` `[h, parts * h]`, `bias` and `around_bias` `[h]`."""

    weight: torch.Tensor
    bias: torch.Tensor
    around: torch.Tensor
    around_bias: torch.Tensor

    def __call__(self, parts: torch.Tensor) -> torch.Tensor:
        return F.linear(parts, self.around, self.around_bias) + F.silu(F.linear(parts, self.weight, self.bias))


class HydraHead(NamedTuple):
    """What one head does; its output layer aside, `[m, parts * h]` -> `[m, h]`."""

    first: Narrowing
    blocks: Sequence[Block]
    output: Output

    def __call__(self, parts: torch.Tensor) -> torch.Tensor:
        states = self.first(parts)
        for block in self.blocks:
            states = block(states)
        return states


class HydraHeads:
    """See `PathHeads`: what is carried is the state and the path's tokens side by side, `[m, (heads + 1) * h]`.

    Args:
        heads: the first one is for the token after the root.
        target: whose ids they know, and whose embeddings they read.
    """

    def __init__(self, heads: Sequence[HydraHead], target: CachedModel) -> None:
        self._heads, self._target = heads, target
        self._dtype = heads[0].first.weight.dtype
        self._embed = target.model.get_input_embeddings()

    def begin(self, states: torch.Tensor) -> torch.Tensor:
        """See `PathHeads.begin`."""
        return F.pad(states.to(self._target.device, self._dtype), (0, len(self._heads) * states.shape[-1]))

    def read(self, carried: torch.Tensor, tokens: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """See `PathHeads.read`."""
        count = len(self._heads) + 1
        parts = carried.view(len(carried), count, carried.shape[1] // count).clone()
        with torch.no_grad():
            parts[torch.arange(len(tokens), device=tokens.device), depth + 1] = self._embed(tokens).to(carried.dtype)
        return parts.view(carried.shape)

    def inner(self, carried: torch.Tensor, depth: int) -> torch.Tensor:
        """`[m, h]` what the output layer reads."""
        return self._heads[depth](carried[:, : (depth + 2) * carried.shape[-1] // (len(self._heads) + 1)])

    def say(self, carried: torch.Tensor, depth: int) -> torch.Tensor:
        """See `PathHeads.say`."""
        return self._target.of_texts(self._heads[depth].output(self.inner(carried, depth)))


def load_hydra(spec: Hydra, files: HeadFiles, target: Target) -> PathWiseDrafter:
    """The drafter of `files`. Raises as `load_medusa`."""
    names, model = spec.names(files)[: spec.heads], target.load()
    wanted = {name for head in names for part in (*head.blocks, head.output) for name in part.values()}
    tensors = head_tensors(files, wanted, model)
    shared = None if names[0].output else OutputLayer(model, target.files.spec.path)
    heads = HydraHeads([hydra_head(head, tensors, shared) for head in names], model)
    description: dict[str, Any] = described(files, tensors, model) | {
        "heads": spec.heads,
        "output_layers": "the target's" if shared else "own",
    }
    drafter = PathWiseDrafter(heads, model, Known(spec.traits, spec.facts(files, target.files), description))
    description["self_check"] = check_wiring(drafter, model, files.spec.path)
    return drafter


def hydra_head(names: HydraHeadNames, tensors: Mapping[str, torch.Tensor], shared: OutputLayer | None) -> HydraHead:
    """Out of its tensors; `shared`: the target's output layer, where it has none."""
    linear, bias, around, around_bias = (
        tensors[names.blocks[0][part]]
        for part in ("linear.weight", "linear.bias", "res_connection.weight", "res_connection.bias")
    )
    blocks = [Block(tensors[block["linear.weight"]], tensors[block["linear.bias"]]) for block in names.blocks[1:]]
    if shared is not None:
        return HydraHead(Narrowing(linear, bias, around, around_bias), blocks, shared)
    weight = tensors[names.output["weight"]]
    own = OwnLayer(weight, None, len(weight), tensors.get(names.output.get("bias", "")))
    return HydraHead(Narrowing(linear, bias, around, around_bias), blocks, own)
