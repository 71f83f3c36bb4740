"""Recurrent drafters (ReDrafter, Zhang et al. 2024): one cell reads a path beside the target's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.drafters.base import DrafterTraits, Target
from specdraft.drafters.heads import HeadSpec, settings_of, where
from specdraft.models.files import ModelFiles
from specdraft.models.head_files import HeadFiles
from specdraft.models.redrafter_layout import RecurrentShape, recurrent_shape

if TYPE_CHECKING:
    from specdraft.drafters.loaded.path_wise import PathWiseDrafter


@dataclass
class Redrafter(HeadSpec):
    """One head proposes at every depth, from the target's state of the token before the root and from what its cell
    made of the path's tokens, the root first.

    The folder (`drafter.path`, else the pair's `heads`) holds safetensors and a config.json in the authors' layout (see
    `models.redrafter_layout`). The authors' beam, with prefixes merged, is `tree=beam_search`.

    Attributes:
        depth: the most levels of a tree.
    """

    kind: str = "redrafter"
    depth: int = 4

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`; the state is the one that the output layer reads, after the final norm."""
        return DrafterTraits(deepest=self.depth, by_offset=True, hidden_layers=(-1,), needs_target=True)

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        self._at_least_one("depth")

    def check_fits(self, files: HeadFiles) -> None:
        """See `HeadSpec.check_fits`."""
        self.shape(files)

    def shape(self, files: HeadFiles) -> RecurrentShape:
        """Of the head. Raises as `check_fits`."""
        text = files.config.get_text_config()
        sizes = int(text.hidden_size), int(text.vocab_size)
        return recurrent_shape(settings_of(files), files.shapes, *sizes, where(files))

    def load(self, weights: ModelFiles | None, target: Target) -> PathWiseDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.redrafter import load_redrafter

        assert isinstance(weights, HeadFiles)
        return load_redrafter(self, weights, target)
