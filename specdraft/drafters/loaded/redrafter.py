"""A recurrent drafter in memory: `s' = SiLU(W e + U s + b)` along a path, and one head on the target's last state and s
(Zhang et al. 2024, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from specdraft.drafters.base import Target
from specdraft.drafters.loaded.by_offset import Known
from specdraft.drafters.loaded.head_tensors import described, head_tensors
from specdraft.drafters.loaded.last_state import check_wiring
from specdraft.drafters.loaded.medusa import Block, Output, OwnLayer
from specdraft.drafters.loaded.path_wise import PathWiseDrafter
from specdraft.drafters.redrafter import Redrafter
from specdraft.models.cached_model import CachedModel
from specdraft.models.head_files import HeadFiles
from specdraft.models.output_layer import OutputLayer
from specdraft.models.redrafter_layout import CELL, JOIN, RecurrentShape, expected_shapes


class RecurrentHeads:
    """See `PathHeads`: what is carried is the target's state and the cell's side by side, `[m, 2 h]`.

    Args:
        shape: of the head.
        tensors: by their names in the authors' layout.
        output: its output layer.
        target: whose ids it knows, and whose embeddings it reads.
    """

    def __init__(
        self, shape: RecurrentShape, tensors: Mapping[str, torch.Tensor], output: Output, target: CachedModel
    ) -> None:
        self._shape, self._tensors, self._output, self._target = shape, tensors, output, target
        self._dtype = next(iter(tensors.values())).dtype
        self._embed = target.model.get_input_embeddings()
        parts = ("weight", "bias")
        self._blocks = [
            Block(*(tensors[f"lm_head.{block}.linear.{part}"] for part in parts)) for block in range(shape.blocks)
        ]

    def begin(self, states: torch.Tensor) -> torch.Tensor:
        """See `PathHeads.begin`: the cell's state is 0."""
        return F.pad(states.to(self._target.device, self._dtype), (0, states.shape[-1]))

    def read(self, carried: torch.Tensor, tokens: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """See `PathHeads.read`: the cell is the same at every depth."""
        context, state = carried.chunk(2, -1)
        with torch.no_grad():
            embedded = self._embed(tokens).to(carried.dtype)
        if self._shape.rnn:
            within, around, bias = (self._tensors[name] for name in CELL)
            state = F.silu(F.linear(embedded, within) + F.linear(state, around, bias))
        else:
            state = embedded + state
        return torch.cat([context, state], -1)

    def inner(self, carried: torch.Tensor, depth: int) -> torch.Tensor:
        """`[m, e]` what the output layer reads."""
        states = F.linear(carried, *(self._tensors[name] for name in JOIN)) if self._shape.joined else carried
        for block in self._blocks:
            states = block(states)
        return states

    def say(self, carried: torch.Tensor, depth: int) -> torch.Tensor:
        """See `PathHeads.say`."""
        return self._target.of_texts(self._output(self.inner(carried, depth)))


def load_redrafter(spec: Redrafter, files: HeadFiles, target: Target) -> PathWiseDrafter:
    """The drafter of `files`. Raises as `load_medusa`."""
    shape, model = spec.shape(files), target.load()
    rows = int(files.config.get_text_config().vocab_size)
    tensors = head_tensors(files, dict(expected_shapes(shape, rows)), model)
    output: Output
    if shape.own_output:
        output = OwnLayer(tensors[shape.output], None, rows)
    else:
        output = OutputLayer(model, target.files.spec.path)
    description: dict[str, Any] = described(files, tensors, model) | {"depth": spec.depth, **shape._asdict()}
    heads = RecurrentHeads(shape, tensors, output, model)
    drafter = PathWiseDrafter(heads, model, Known(spec.traits, spec.facts(files, target.files), description))
    description["self_check"] = check_wiring(drafter, model, files.spec.path)
    return drafter
