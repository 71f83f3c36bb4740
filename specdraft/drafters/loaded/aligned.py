"""A draft model whose states are mapped to the target's before the target's output layer reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from specdraft.drafters.base import Target
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.errors import ModelError
from specdraft.models.alignment_file import AlignmentFile, find_alignment
from specdraft.models.cached_model import CachedModel
from specdraft.models.files import ModelFiles
from specdraft.models.loading import load_model
from specdraft.models.output_layer import LAST, OutputLayer
from specdraft.models.self_check import self_check

Head = Callable[[torch.Tensor], torch.Tensor]  # `[..., d]` states -> `[..., rows]` float32 logits


class AffineMap:
    """`y ~ W x + b`, of a draft model's state x and the target's y.

    Args:
        weight: `[d_t, d_d]` W.
        bias: `[d_t]` b.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight, self.bias = weight.float(), bias.float()

    @classmethod
    def read(cls, file: AlignmentFile, device: torch.device) -> AffineMap:
        """From a file."""
        return cls(*(torch.from_numpy(tensor).to(device) for tensor in file.tensors().values()))

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """`[..., d_d]` -> `[..., d_t]` float32."""
        return states.float() @ self.weight.T + self.bias


class AlignedHead:
    """The target's output layer on mapped states: logits `U (W x + b)`.

    Args:
        mapping: from the draft's states to the target's.
        layer: the target's.

    Raises:
        ModelError: their widths differ.
    """

    def __init__(self, mapping: AffineMap, layer: OutputLayer) -> None:
        self.mapping, self.layer = mapping, layer
        if len(mapping.bias) != layer.width:
            raise ModelError(f"the alignment gives states of width {len(mapping.bias)}; the target's are {layer.width}")

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """`[..., d_d]` -> `[..., rows]` float32."""
        return self.layer(self.mapping(states))


class HeadedModel(CachedModel):
    """A model with another output layer than its own.

    Args:
        model: whose states are read; it stays as it is.
        head: makes logits of its last states, of as many ids at least as `model` may give.
    """

    def __init__(self, model: CachedModel, head: Head) -> None:
        super().__init__(model.model, model.vocab, model.width)
        self.head = head

    def forward(
        self,
        token_ids: torch.Tensor,
        layers: Sequence[int] = (),
        logits_to_keep: int | torch.Tensor = 0,
        **inputs: Any,
    ) -> tuple[torch.Tensor, Any]:
        """See `LanguageModel.forward`; of its own logits the fewest are asked for."""
        _, hidden = super().forward(token_ids, (*layers, LAST), logits_to_keep=1, **inputs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        states = hidden[:, :, -1] if isinstance(kept, int) else hidden[:, kept, -1]
        return self.of_texts(self.head(states)), hidden[:, :, :-1] if layers else None


class AlignedDrafter(ModelDrafter):
    """A draft model with an aligned head.

    Args:
        model: with the head.
        files: of the draft model, the alignment beside it.
        facts: of the alignment.
        check: what the self-check said of the draft model alone.
    """

    def __init__(self, model: HeadedModel, files: ModelFiles, facts: Mapping[str, str], check: Any) -> None:
        super().__init__(model, files, check)
        self._facts = facts

    def describe(self) -> dict[str, Any]:
        """See `Drafter.describe`."""
        assert self.files is not None
        (path,) = self.files.beside
        return super().describe() | {"alignment": {"file": path.name, **self._facts}}


def load_aligned(files: ModelFiles, target: Target) -> AlignedDrafter:
    """The drafter of `files`, which have an alignment beside them.

    Raises:
        ConfigError: the alignment is another pair's, or cannot be read.
        ModelError: a model cannot be loaded, or their widths do not fit.
    """
    (path,) = files.beside
    alone = ModelFiles(files.spec, files.folder)
    file = find_alignment(str(path), "drafter.path", target.files, alone)
    model = load_model(files, target.files.vocab())
    check = self_check(model, files.spec.path)
    mapping = AffineMap.read(file, model.device)
    width = int(model.model.config.get_text_config().hidden_size)
    if mapping.weight.shape[1] != width:
        raise ModelError(f"{path.name} maps states of width {mapping.weight.shape[1]}; the draft's are {width}")
    head = AlignedHead(mapping, OutputLayer(target.load(), target.files.spec.path))
    return AlignedDrafter(HeadedModel(model, head), files, file.facts, check)
