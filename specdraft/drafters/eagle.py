"""EAGLE-1, EAGLE-2 and EAGLE-3 (Li et al. 2024, 2025): a small head on the target's states drafts step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdraft.config import read_json
from specdraft.drafters.base import DrafterSpec, DrafterTraits, Target
from specdraft.errors import ConfigError
from specdraft.models.eagle_layout import EagleNames, eagle_names
from specdraft.models.files import ModelFiles, has_weights
from specdraft.models.head_files import HeadFiles
from specdraft.models.placement import device_type_of, dtype_name
from specdraft.models.spec import PairSpec

if TYPE_CHECKING:
    from specdraft.drafters.loaded.eagle_drafter import EagleDrafter


@dataclass
class Eagle(DrafterSpec):
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
        return DrafterTraits(deepest=self.depth, by_offset=True, drifts=True)

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        if self.depth < 1:
            raise ConfigError(f"drafter.depth={self.depth} is out of range; expected 1 or more")

    def complete(self, weights: ModelFiles, pair: PairSpec, target: ModelFiles) -> HeadFiles:
        """See `DrafterSpec.complete`: the head, which must fit the target."""
        files = HeadFiles(weights.spec, weights.folder, target=target)
        if has_weights(files.folder):
            self.names(files)
        return files

    def names(self, files: HeadFiles) -> EagleNames:
        """What the folder holds. Raises `ConfigError` where that is no head of this target."""
        where = f"drafter.path={files.spec.path}"
        told = read_json(files.folder / "config.json", f"{where}: config.json")
        if not isinstance(told, dict):
            raise ConfigError(f"{where}: config.json is no object")
        return eagle_names(told, files.shapes, files.config.get_text_config(), where)

    def load(self, weights: ModelFiles | None, target: Target) -> EagleDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.eagle import load_eagle

        assert isinstance(weights, HeadFiles)
        return load_eagle(self, weights, target)

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any]:
        """See `DrafterSpec.facts`."""
        assert weights is not None
        held = {"dtype": dtype_name(target), "device": device_type_of(target)}
        return {"weights": weights.weights_hash, "vocab": target.vocab(), "drafter": self.parameters} | held
