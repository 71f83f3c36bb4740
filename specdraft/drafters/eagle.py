"""EAGLE-1, EAGLE-2 and EAGLE-3 (Li et al. 2024, 2025): a small head on the target's states drafts step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.drafters.base import DrafterTraits, Target
from specdraft.drafters.heads import HeadSpec, settings_of, where
from specdraft.models.eagle_layout import EagleNames, eagle_names
from specdraft.models.files import ModelFiles
from specdraft.models.head_files import HeadFiles

if TYPE_CHECKING:
    from specdraft.drafters.loaded.eagle_drafter import EagleDrafter


@dataclass
class Eagle(HeadSpec):
    """One decoder layer or a few that read the target's states of the text and their own output of what they drafted.

    The folder (`drafter.path`, else the pair's `heads`) holds safetensors and a config.json in the authors' layout or
    in that of `speculators` (see `models.eagle_layout`).

    Attributes:
        depth: levels of a tree at most: so many are recorded.
    """

    kind: str = "eagle"
    depth: int = 8

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`; which of the target's states it reads, only the folder tells (see
        `EagleDrafter.traits`)."""
        return DrafterTraits(deepest=self.depth, by_offset=True, drifts=True, needs_target=True)

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        self._at_least_one("depth")

    def check_fits(self, files: HeadFiles) -> None:
        """See `HeadSpec.check_fits`."""
        self.names(files)

    def names(self, files: HeadFiles) -> EagleNames:
        """What the folder holds. Raises `ConfigError` where that is no head of this target."""
        return eagle_names(settings_of(files), files.shapes, files.config.get_text_config(), where(files))

    def load(self, weights: ModelFiles | None, target: Target) -> EagleDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.eagle import load_eagle

        assert isinstance(weights, HeadFiles)
        return load_eagle(self, weights, target)
