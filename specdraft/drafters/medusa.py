"""Medusa (Cai et al. 2024): heads on the target's last state propose the next few tokens at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.drafters.base import DrafterTraits, Target
from specdraft.drafters.heads import HeadSpec, where
from specdraft.errors import ConfigError
from specdraft.models.files import ModelFiles
from specdraft.models.head_files import HeadFiles
from specdraft.models.medusa_layout import MedusaNames, medusa_names

if TYPE_CHECKING:
    from specdraft.drafters.loaded.medusa import MedusaDrafter


@dataclass
class Medusa(HeadSpec):
    """Head d proposes the token d places after the root, from the target's state of the token before the root.

    Every node at one depth has the same children, whatever its path. The folder (`drafter.path`, else the pair's
    `heads`) holds safetensors in the authors' layout or in vLLM's (see `models.medusa_layout`).

    Attributes:
        heads: how many of them, from the first one: the most levels of a tree.
    """

    kind: str = "medusa"
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

    def names(self, files: HeadFiles) -> MedusaNames:
        """Of the tensors. Raises `ConfigError` where they are not this target's, or fewer than are asked for."""
        text = files.config.get_text_config()
        names = medusa_names(files.folder, files.shapes, int(text.hidden_size), int(text.vocab_size), where(files))
        if len(names.heads) < self.heads:
            raise ConfigError(f"drafter.heads={self.heads} is out of range; {files.spec.path} has {len(names.heads)}")
        return names

    def load(self, weights: ModelFiles | None, target: Target) -> MedusaDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.medusa import load_medusa

        assert isinstance(weights, HeadFiles)
        return load_medusa(self, weights, target)
