"""The output layers of a pair, and what reads one model's states with the other's."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from specdraft.drafters.loaded.aligned import AffineMap, AlignedHead, Head
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.drafters.pair import Pair
from specdraft.models.alignment_file import find_alignment
from specdraft.models.output_layer import OutputLayer
from specdraft.prediction.alignment import Affine


@dataclass(frozen=True)
class Heads:
    """The output layers of a pair, cut to the ids that both models have.

    Attributes:
        target, draft: the layers.
        vocab: how many ids.
    """

    target: OutputLayer
    draft: OutputLayer
    vocab: int

    @classmethod
    def of(cls, pair: Pair) -> Heads:
        """Of a pair with its draft model. Raises `ModelError` where one has no such layer."""
        assert isinstance(pair.drafter, ModelDrafter)
        target, draft = (files.spec.path for files in pair.files.models)
        layers = OutputLayer(pair.target, target), OutputLayer(pair.drafter.model, draft)
        return cls(*layers, pair.files.shared_ids)

    def of_target(self, states: torch.Tensor) -> torch.Tensor:
        """`[..., d_t]` -> `[..., vocab]`."""
        return self.target(states)[..., : self.vocab]

    def of_draft(self, states: torch.Tensor) -> torch.Tensor:
        """`[..., d_d]` -> `[..., vocab]`."""
        return self.draft(states)[..., : self.vocab]

    def aligned(self, affine: Affine) -> Head:
        """`[..., d_d]` -> `[..., vocab]`, by a map."""
        head = AlignedHead(AffineMap(affine.weight, affine.bias), self.target)
        return lambda states: head(states)[..., : self.vocab]

    def read(self, named: str, key: str, pair: Pair) -> AlignedHead:
        """The head that a file makes, which must be this pair's; for `alignment_features`. Raises as `find_alignment`.

        Args:
            named: the file.
            key: what names it, for messages.
            pair: with its draft model.
        """
        assert isinstance(pair.drafter, ModelDrafter)
        file = find_alignment(named, key, *pair.files.models)
        return AlignedHead(AffineMap.read(file, pair.drafter.model.device), self.target)
