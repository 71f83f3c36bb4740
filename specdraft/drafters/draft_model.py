"""The pair's draft model as a drafter: a smaller causal LM (see `loaded/model.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from specdraft.drafters.base import DrafterSpec, DrafterTraits, Target
from specdraft.errors import ConfigError
from specdraft.models.facts import facts_of_files
from specdraft.models.files import ModelFiles
from specdraft.models.spec import ModelSpec, PairSpec

if TYPE_CHECKING:
    from specdraft.drafters.loaded.model import ModelDrafter


@dataclass
class Model(DrafterSpec):
    """The pair's draft model (`pair.draft`)."""

    for_encoders: ClassVar[bool] = True
    kind: str = "model"

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`."""
        return DrafterTraits(waits=True)

    def weights(self, pair: PairSpec) -> ModelSpec:
        """See `DrafterSpec.weights`: the pair's own draft model."""
        if self.path is not None:
            raise ConfigError(f"drafter.path={self.path}: the weights of drafter=model are pair.draft.path")
        pair.draft.check("pair.draft")
        return pair.draft

    def load(self, weights: ModelFiles | None, target: Target) -> ModelDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.model import ModelDrafter
        from specdraft.models.loading import load_model
        from specdraft.models.self_check import self_check

        assert weights is not None
        model = load_model(weights, target.files.vocab())
        return ModelDrafter(model, weights, self_check(model, weights.spec.path))

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any]:
        """See `DrafterSpec.facts`."""
        assert weights is not None
        return facts_of_files(weights, target.vocab())
