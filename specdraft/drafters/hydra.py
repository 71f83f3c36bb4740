"""Hydra (Ankner et al. 2024): heads as Medusa's that read the tokens of the path too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.drafters.base import Target
from specdraft.drafters.heads import NumberedHeads, where
from specdraft.models.files import ModelFiles
from specdraft.models.head_files import HeadFiles
from specdraft.models.hydra_layout import HydraHeadNames, hydra_names

if TYPE_CHECKING:
    from specdraft.drafters.loaded.path_wise import PathWiseDrafter


@dataclass
class Hydra(NumberedHeads):
    """Head d proposes the token d places after the root, from the target's state of the token before the root and from
    the tokens of the path, the root first.

    The folder (`drafter.path`, else the pair's `heads`) holds safetensors in the authors' layout (see
    `models.hydra_layout`).
    """

    kind: str = "hydra"

    def check_fits(self, files: HeadFiles) -> None:
        """See `HeadSpec.check_fits`."""
        self.names(files)

    def names(self, files: HeadFiles) -> list[HydraHeadNames]:
        """Of the tensors. Raises as `check_fits`."""
        text = files.config.get_text_config()
        names = hydra_names(files.shapes, int(text.hidden_size), int(text.vocab_size), where(files))
        self._check_count(len(names), files)
        return names

    def load(self, weights: ModelFiles | None, target: Target) -> PathWiseDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.hydra import load_hydra

        assert isinstance(weights, HeadFiles)
        return load_hydra(self, weights, target)
