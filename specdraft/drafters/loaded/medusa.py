"""Medusa heads in memory: `U (x + SiLU(W x + b))` on the target's last state x (Cai et al. 2024, section 2.1.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from specdraft.drafters.base import RecordedText, Target
from specdraft.drafters.loaded.by_offset import Known, StartsOf
from specdraft.drafters.loaded.head_tensors import described, head_tensors
from specdraft.drafters.loaded.last_state import LastStateDrafter, check_wiring, states_before
from specdraft.drafters.loaded.position_wise import PositionWiseDrafter
from specdraft.drafters.medusa import Medusa
from specdraft.errors import ModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.head_files import HeadFiles
from specdraft.models.medusa_layout import HeadNames, MedusaNames
from specdraft.models.output_layer import OutputLayer

Output = Callable[[torch.Tensor], torch.Tensor]  # `[..., h]` -> `[..., V]` float32


class Block(NamedTuple):
    """`x + SiLU(W x + b)`: `weight` `[h, h]`, `bias` `[h]`."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return states + F.silu(F.linear(states, self.weight, self.bias))


@dataclass(frozen=True)
class OwnLayer:
    """An output layer of a head: `weight` `[rows, h]`, `ids` `[rows]` of V what its rows stand for, if not all,
    `bias` `[rows]`."""

    weight: torch.Tensor
    ids: torch.Tensor | None
    vocab: int
    bias: torch.Tensor | None = None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        logits = F.linear(states, self.weight, self.bias).float()
        if self.ids is None:
            return logits
        whole = logits.new_full((*logits.shape[:-1], self.vocab), -torch.inf)
        whole[..., self.ids] = logits
        return whole


class Head(NamedTuple):
    """Residual blocks, and an output layer."""

    blocks: Sequence[Block]
    output: Output

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            states = block(states)
        return self.output(states)


class MedusaHeads:
    """What proposes.

    Args:
        heads: the first one is for the token after the root.
        target: whose ids they know.
    """

    def __init__(self, heads: Sequence[Head], target: CachedModel) -> None:
        self.heads, self._target = heads, target

    def __call__(self, states: torch.Tensor, count: int) -> torch.Tensor:
        """`[m, h]` -> `[m, count, vocab]`."""
        here = states.to(self._target.device, self._target.dtype)
        return torch.stack([self._target.of_texts(head(here)) for head in self.heads[:count]], 1)


class MedusaDrafter(LastStateDrafter, PositionWiseDrafter):
    """Heads with the state that they read next.

    Args:
        heads: what proposes.
        target, known: see `OffsetDrafter`.
    """

    def __init__(self, heads: MedusaHeads, target: CachedModel, known: Known) -> None:
        super().__init__(target, known)
        self._heads = heads

    def now(self, root: int, count: int) -> torch.Tensor:
        """See `PositionWiseDrafter.now`: the root is not read."""
        return self._heads(self._before, count)[0]

    def along(self, text: RecordedText) -> StartsOf:
        """See `StartsDrafter.along`."""
        states = states_before(text)
        return lambda first, last, count: self._heads(states[first:last], count)


def load_medusa(spec: Medusa, files: HeadFiles, target: Target) -> MedusaDrafter:
    """The drafter of `files`.

    Raises:
        ConfigError: they are not this target's heads.
        ModelError: they cannot be read, the target's output layer is no linear one on its last state, or what is
            drafted is not what these heads say of the state before the root.
    """
    names, model = spec.names(files), target.load()
    tensors = head_tensors(files, _wanted(names), model)
    shared = OutputLayer(model, target.files.spec.path) if names.heads[0].output is None else None
    heads = MedusaHeads([_head(head, names, tensors, shared, files) for head in names.heads[: spec.heads]], model)
    description: dict[str, Any] = described(files, tensors, model) | {
        "heads": spec.heads,
        "layout": names.layout,
        "output_layers": "the target's" if shared else "own",
    }
    drafter = MedusaDrafter(heads, model, Known(spec.traits, spec.facts(files, target.files), description))
    description["self_check"] = check_wiring(drafter, model, files.spec.path)
    return drafter


def _wanted(names: MedusaNames) -> set[str]:
    wanted = {name for head in names.heads for block in head.blocks for name in block if name}
    return wanted | {name for name in (names.token_map, *(head.output for head in names.heads)) if name}


def _head(
    names: HeadNames,
    all_names: MedusaNames,
    tensors: Mapping[str, torch.Tensor],
    shared: OutputLayer | None,
    files: HeadFiles,
) -> Head:
    blocks = [Block(tensors[block.weight], tensors[block.bias] if block.bias else None) for block in names.blocks]
    if names.output is None:
        assert shared is not None
        return Head(blocks, shared)
    weight, vocab = tensors[names.output], int(files.config.get_text_config().vocab_size)
    ids = tensors[all_names.token_map] if all_names.token_map else None
    if ids is None:
        return Head(blocks, OwnLayer(weight, None, vocab))
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocab or len(set(ids.tolist())) < len(ids):
        raise ModelError(f"{files.spec.path}: {all_names.token_map} holds ids twice, or that the target does not have")
    return Head(blocks, OwnLayer(weight if len(weight) == len(ids) else weight[ids], ids, vocab))
