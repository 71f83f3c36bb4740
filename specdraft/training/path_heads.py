"""Heads that read the path's tokens, learning from recorded states of the target: Hydra's and recurrent ones.

As Medusa heads do (see `training.medusa`); what stands between the state and the token that is asked is read from the
text. Letters: m places, h numbers of a state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch

from specdraft.drafters.loaded.hydra import HydraHeads, hydra_head
from specdraft.drafters.loaded.path_wise import PathHeads
from specdraft.drafters.loaded.redrafter import RecurrentHeads
from specdraft.drafters.pair import Pair
from specdraft.models.hydra_layout import NARROWING, PARTS, HydraHeadNames
from specdraft.models.output_layer import OutputLayer
from specdraft.models.redrafter_layout import RecurrentShape, expected_shapes
from specdraft.training.loop import Objective
from specdraft.training.medusa import HeadsOfStates
from specdraft.training.settings import HeadTraining, HydraTraining, RedrafterTraining
from specdraft.training.states import TextStates

Parameters = dict[str, torch.nn.Parameter]


class LearningHeads(PathHeads, Protocol):
    """See `PathHeads`."""

    def inner(self, carried: torch.Tensor, depth: int) -> torch.Tensor:
        """`[m, h]` what the output layer reads of nodes at this depth."""


def hydra_objective(pair: Pair, states: TextStates, asked: HydraTraining) -> Objective:
    """Hydra heads of a target, which share its output layer. Raises as `medusa_objective`."""
    output = OutputLayer(pair.target, pair.files.target.spec.path)
    parameters = new_hydra(asked.heads, asked.blocks, output.width, pair.target.device)
    names = hydra_tensors(asked.heads, asked.blocks)
    heads = HydraHeads([hydra_head(head, parameters, output) for head in names], pair.target)
    learning = HeadsOfStates(pair, output, inner_of(heads, states, asked, pair), states, asked)
    return Objective(parameters, learning.step)


def hydra_tensors(heads: int, blocks: int) -> list[HydraHeadNames]:
    """Names in the authors' layout, without output layers."""
    return [
        HydraHeadNames(
            [
                {part: f"hydra_mlp.{head}.{block}.{part}" for part in (PARTS if block else NARROWING)}
                for block in range(blocks)
            ],
            {},
        )
        for head in range(heads)
    ]


def new_hydra(heads: int, blocks: int, width: int, device: torch.device) -> Parameters:
    """Heads that say what the target says: zeros, and the state goes round the first block."""
    made = {}
    for number, head in enumerate(hydra_tensors(heads, blocks)):
        for place, block in enumerate(head.blocks):
            for part, name in block.items():
                inside = width if place else (number + 2) * width
                tensor = torch.zeros((width, inside) if part.endswith("weight") else (width,), device=device)
                if part == "res_connection.weight":
                    tensor[:, :width] = torch.eye(width)
                made[name] = torch.nn.Parameter(tensor)
    return made


def redrafter_objective(pair: Pair, states: TextStates, asked: RedrafterTraining) -> Objective:
    """A recurrent head of a target, which shares its output layer. Raises as `medusa_objective`."""
    output = OutputLayer(pair.target, pair.files.target.spec.path)
    shape = redrafter_shape(output.width, asked)
    parameters = new_redrafter(shape, asked.seed, pair.target.device)
    heads = RecurrentHeads(shape, parameters, output, pair.target)
    learning = HeadsOfStates(pair, output, inner_of(heads, states, asked, pair), states, asked, joined=True)
    return Objective(parameters, learning.step)


def redrafter_shape(width: int, asked: RedrafterTraining) -> RecurrentShape:
    """The head that is trained."""
    return RecurrentShape(width, width, asked.blocks, rnn=True, own_output=False)


def redrafter_config(width: int, vocab: int, asked: RedrafterTraining) -> dict[str, Any]:
    """What config.json says of it, in the authors' layout."""
    sizes = {"hidden_size": width, "exit_dim": width, "vocab_size": vocab}
    return {**sizes, "num_draft_layers": asked.blocks, "rnn": True}


def new_redrafter(shape: RecurrentShape, seed: int, device: torch.device) -> Parameters:
    """A head that says what the target says, but for what its cell adds at random."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, size in expected_shapes(shape, 0):
        tensor = torch.zeros(size)
        if name.startswith("rnn") and len(size) > 1:
            tensor = torch.randn(size, generator=generator) * size[1] ** -0.5
        elif name == "input_proj.weight":
            tensor[:, : shape.width] = torch.eye(shape.width)
            tensor[:, shape.width :] = 0.01 * torch.randn(size[0], shape.width, generator=generator)
        made[name] = torch.nn.Parameter(tensor.to(device))
    return made


def inner_of(
    heads: LearningHeads, states: TextStates, asked: HeadTraining, pair: Pair
) -> Callable[[torch.Tensor, np.ndarray], Iterator[torch.Tensor]]:
    """See `HeadsOfStates`: the path of head k are the k + 1 tokens after a place."""

    def inner(here: torch.Tensor, places: np.ndarray) -> Iterator[torch.Tensor]:
        carried = heads.begin(here)
        for depth in range(asked.heads):
            tokens = torch.from_numpy(states.ids[places + 1 + depth]).to(pair.target.device)
            carried = heads.read(carried, tokens, torch.full_like(tokens, depth))
            yield heads.inner(carried, depth)

    return inner
