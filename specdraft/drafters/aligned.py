"""The pair's draft model with an affine map behind it: the target's output layer reads its states (see
`prediction/alignment.py`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from specdraft.drafters.base import DrafterTraits, Target
from specdraft.drafters.draft_model import Model
from specdraft.errors import ConfigError, NoWeightsError
from specdraft.models.alignment_file import find_alignment
from specdraft.models.files import ModelFiles
from specdraft.models.spec import ModelSpec, PairSpec

if TYPE_CHECKING:
    from specdraft.drafters.loaded.aligned import AlignedDrafter


@dataclass
class Aligned(Model):
    """The pair's draft model, its state mapped to the target's (`drafter.path`), read by the target's output layer.

    Attributes:
        path: an alignment that `specdraft fit alignment` wrote. Left out: the pair's `heads`.
    """

    for_encoders: ClassVar[bool] = False
    kind: str = "aligned"

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`."""
        return replace(super().traits, needs_target=True)

    @property
    def label(self) -> str:
        """See `DrafterSpec.label`: with the file's name, as a study may hold several alignments of one pair."""
        return f"{self.kind}-{Path(self.path).stem}" if self.path else self.kind

    def weights(self, pair: PairSpec) -> ModelSpec:
        """See `DrafterSpec.weights`: the pair's own draft model."""
        pair.draft.check("pair.draft")
        return pair.draft

    def complete(self, weights: ModelFiles, pair: PairSpec, target: ModelFiles) -> ModelFiles:
        """See `DrafterSpec.complete`: the alignment, which must be this pair's."""
        named = self.path or pair.heads.get(self.kind)
        if named is None:
            raise NoWeightsError(
                f"drafter.path is empty; drafter={self.kind} needs an alignment (specdraft fit alignment "
                f"pair={pair.name} --out FILE.safetensors makes one)"
            )
        if weights.in_memory is not None:
            raise ConfigError(f"drafter={self.kind} needs models in folders: an alignment names their weights")
        return replace(weights, beside=(find_alignment(named, "drafter.path", target, weights).path,))

    def load(self, weights: ModelFiles | None, target: Target) -> AlignedDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.aligned import load_aligned

        assert weights is not None
        return load_aligned(weights, target)
