"""Medusa (Cai et al. 2024): heads on the target's last state propose the next few tokens at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.drafters.base import Target
from specdraft.drafters.heads import NumberedHeads, where
from specdraft.models.files import ModelFiles
from specdraft.models.head_files import HeadFiles
from specdraft.models.medusa_layout import MedusaNames, medusa_names

if TYPE_CHECKING:
    from specdraft.drafters.loaded.medusa import MedusaDrafter


@dataclass
class Medusa(NumberedHeads):
    """Head d proposes the token d places after the root, from the target's state of the token before the root.

    Every node at one depth has the same children, whatever its path. The folder (`drafter.path`, else the pair's
    `heads`) holds safetensors in the authors' layout or in vLLM's (see `models.medusa_layout`).
    """

    kind: str = "medusa"

    def check_fits(self, files: HeadFiles) -> None:
        """See `HeadSpec.check_fits`."""
        self.names(files)

    def names(self, files: HeadFiles) -> MedusaNames:
        """Of the tensors. Raises `ConfigError` where they are not this target's, or fewer than are asked for."""
        text = files.config.get_text_config()
        names = medusa_names(files.folder, files.shapes, int(text.hidden_size), int(text.vocab_size), where(files))
        self._check_count(len(names.heads), files)
        return names

    def load(self, weights: ModelFiles | None, target: Target) -> MedusaDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.medusa import load_medusa

        assert isinstance(weights, HeadFiles)
        return load_medusa(self, weights, target)
