"""Medusa (Cai et al. 2024): heads on the target's last state propose the next few tokens at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdraft.drafters.base import DrafterSpec, DrafterTraits, Target
from specdraft.errors import ConfigError
from specdraft.models.files import ModelFiles, has_weights
from specdraft.models.head_files import HeadFiles
from specdraft.models.medusa_layout import MedusaNames, medusa_names
from specdraft.models.placement import device_type_of, dtype_name
from specdraft.models.spec import PairSpec

if TYPE_CHECKING:
    from specdraft.drafters.loaded.position_wise import PositionWiseDrafter


@dataclass
class Medusa(DrafterSpec):
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
        if self.heads < 1:
            raise ConfigError(f"drafter.heads={self.heads} is out of range; expected 1 or more")

    def complete(self, weights: ModelFiles, pair: PairSpec, target: ModelFiles) -> HeadFiles:
        """See `DrafterSpec.complete`: the heads, which must fit the target."""
        files = HeadFiles(weights.spec, weights.folder, target=target)
        if has_weights(files.folder):
            self.names(files)
        return files

    def names(self, files: HeadFiles) -> MedusaNames:
        """Of the tensors. Raises `ConfigError` where they are not this target's, or fewer than are asked for."""
        text, where = files.config.get_text_config(), f"drafter.path={files.spec.path}"
        names = medusa_names(files.folder, files.shapes, int(text.hidden_size), int(text.vocab_size), where)
        if len(names.heads) < self.heads:
            raise ConfigError(f"drafter.heads={self.heads} is out of range; {files.spec.path} has {len(names.heads)}")
        return names

    def load(self, weights: ModelFiles | None, target: Target) -> PositionWiseDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.medusa import load_medusa

        assert isinstance(weights, HeadFiles)
        return load_medusa(self, weights, target)

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any]:
        """See `DrafterSpec.facts`."""
        assert weights is not None
        held = {"dtype": dtype_name(target), "device": device_type_of(target)}
        return {"weights": weights.weights_hash, "vocab": target.vocab(), "drafter": self.parameters} | held
