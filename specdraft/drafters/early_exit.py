"""Early exit: the target's own first layers, final norm and output layer draft, without weights beside the target's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdraft.drafters.base import DrafterSpec, DrafterTraits, Target
from specdraft.errors import ConfigError
from specdraft.models.facts import facts_of_files
from specdraft.models.files import ModelFiles

if TYPE_CHECKING:
    from specdraft.drafters.loaded.early_exit import EarlyExitDrafter

LAYERS_FOR_ONE = 4  # layers of the target for each that drafts, where nothing is said


@dataclass
class EarlyExit(DrafterSpec):
    """The target's first layers as a draft model, with a cache of their own (LayerSkip, Elhoushi et al. 2024, without
    its training, which makes early layers good at it).

    Attributes:
        layers: how many; None: a quarter of the target's.
    """

    kind: str = "early_exit"
    layers: int | None = None

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`."""
        return DrafterTraits(owns_weights=False, waits=True, needs_target=True)

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        if self.layers is not None and self.layers < 1:
            raise ConfigError(f"drafter.layers={self.layers} is out of range; expected 1 or more")

    def check_target(self, target: ModelFiles) -> None:
        """See `DrafterSpec.check_target`: there are more layers, and weights that two models can share."""
        if self.layers_of(target) >= target.layers:
            raise ConfigError(
                f"drafter.layers={self.layers_of(target)} is out of range; {target.spec.path} has {target.layers} "
                f"layers, expected fewer than these"
            )
        if target.quantised or target.spec.quantize != "none" or target.spec.spread:
            what = f"device={target.spec.device}" if target.spec.spread else "quantised weights"
            raise ConfigError(
                f"drafter=early_exit shares the target's weights, which does not go with {what} ({target.spec.path})"
            )
        super().check_target(target)

    def layers_of(self, target: ModelFiles) -> int:
        """How many of a target's layers draft."""
        return max(1, target.layers // LAYERS_FOR_ONE) if self.layers is None else self.layers

    def load(self, weights: ModelFiles | None, target: Target) -> EarlyExitDrafter:
        """See `DrafterSpec.load`."""
        from specdraft.drafters.loaded.early_exit import load_early_exit

        return load_early_exit(self, target)

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any]:
        """See `DrafterSpec.facts`."""
        return facts_of_files(target) | {"drafter": self.as_dict()}
