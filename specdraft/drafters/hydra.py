"""Hydra (Ankner et al. 2024): heads as Medusa's that read the tokens of the path too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.drafters.base import DrafterTraits, Target
from specdraft.drafters.heads import HeadSpec, where
from specdraft.errors import ConfigError
from specdraft.models.files import ModelFiles
from specdraft.models.head_files import HeadFiles
from specdraft.models.hydra_layout import HydraHeadNames, hydra_names

if TYPE_CHECKING:
    from specdraft.drafters.loaded.path_wise import PathWiseDrafter


@dataclass
class Hydra(HeadSpec):
    """Head d proposes the token d places after the root, from the target's state of the token before the root and from
    the tokens of the path, the root first.

    The folder (`drafter.path`, else the pair's `heads`) holds safetensors in the authors' layout (see
    `models.hydra_layout`).

    Attributes:
        heads: how many of them, from the first one: the most levels of a tree.
    """

    kind: str = "hydra"
    heads: int = 4

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`; the state is the one that the output layer reads, after the final norm."""
        return DrafterTraits(deepest=self.heads, by_offset=True, hidden_layers=(-1,))

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        self._at_least_one("heads")

    def check_fits(self, files: HeadFiles) -> None:
        """See `HeadSpec.check_fits`."""
        self.names(files)

    def names(self, files: HeadFiles) -> list[HydraHeadNames]:
        """Of the tensors. Raises as `check_fits`."""
        text = files.config.get_text_config()
        names = hydra_names(files.shapes, int(text.hidden_size), int(text.vocab_size), where(files))
        if len(names) < self.heads:
            raise ConfigError(f"drafter.heads={self.heads} is out of range; {files.spec.path} has {len(names)}")
        return names

    def load(self, weights: ModelFiles | None, target: Target) -> PathWiseDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.hydra import load_hydra

        assert isinstance(weights, HeadFiles)
        return load_hydra(self, weights, target)
