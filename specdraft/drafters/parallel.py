"""Block heads (DFlash, Chen et al. 2026): one small forward proposes a token for every slot of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.drafters.base import DrafterTraits, Target
from specdraft.drafters.heads import HeadSpec, settings_of, where
from specdraft.errors import ConfigError
from specdraft.models.block_layout import BlockShape, block_shape
from specdraft.models.files import ModelFiles
from specdraft.models.head_files import HeadFiles

if TYPE_CHECKING:
    from specdraft.drafters.loaded.parallel import ParallelDrafter


@dataclass
class Parallel(HeadSpec):
    """Slot d of a block proposes the token d places after the root, from the target's states and the root.

    Every node at one depth has the same children, whatever its path. The folder (`drafter.path`, else the pair's
    `heads`) holds safetensors and a config.json in z-lab's layout or in `speculators`' (see `models.block_layout`).

    Attributes:
        depth: the most levels of a tree, as far as the block goes.
    """

    kind: str = "parallel"
    depth: int = 4

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`; which of the target's states are read only the loaded drafter tells."""
        return DrafterTraits(deepest=self.depth, by_offset=True, needs_target=True)

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        self._at_least_one("depth")

    def check_fits(self, files: HeadFiles) -> None:
        """See `HeadSpec.check_fits`."""
        self.shape(files)

    def shape(self, files: HeadFiles) -> BlockShape:
        """Of the head. Raises `ConfigError` where it is not this target's, or less deep than is asked for."""
        shape = block_shape(settings_of(files), files.shapes, files.config.get_text_config(), where(files))
        if self.depth > shape.depths:
            raise ConfigError(
                f"drafter.depth={self.depth} is out of range; the block of {files.spec.path} proposes {shape.depths} "
                "tokens"
            )
        return shape

    def load(self, weights: ModelFiles | None, target: Target) -> ParallelDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.parallel import load_parallel

        assert isinstance(weights, HeadFiles)
        return load_parallel(self, weights, target)
