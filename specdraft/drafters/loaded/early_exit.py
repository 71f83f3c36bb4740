"""The target's first layers in memory, drafting as a draft model does."""

from __future__ import annotations

from typing import Any

from specdraft.drafters.base import Target
from specdraft.drafters.early_exit import EarlyExit
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.models.cached_model import CachedModel
from specdraft.models.check_result import SelfCheck
from specdraft.models.first_layers import share_first_layers
from specdraft.models.self_check import self_check


class EarlyExitDrafter(ModelDrafter):
    """A draft model that is part of the target.

    Args:
        model: the layers.
        known: see `Drafter.facts`.
        described: see `Drafter.describe`.
        check: what the self-check said of the layers.
    """

    def __init__(self, model: CachedModel, known: dict[str, Any], described: dict[str, Any], check: SelfCheck) -> None:
        super().__init__(model, check=check)
        self._known, self._described = known, described

    def facts(self) -> dict[str, Any]:
        """See `Drafter.facts`."""
        return self._known

    def describe(self) -> dict[str, Any]:
        """See `Drafter.describe`."""
        return self._described


def load_early_exit(spec: EarlyExit, target: Target) -> EarlyExitDrafter:
    """The drafter of a target. Raises `ModelError` where its first layers alone are no model that drafts trees."""
    layers = spec.layers_of(target.files)
    model = share_first_layers(target.load(), layers, target.files.spec.path)
    check = self_check(model, f"the first {layers} layers of {target.files.spec.path}")
    described = spec.as_dict() | {"layers": layers, "of_layers": target.files.layers, "self_check": check.as_dict()}
    return EarlyExitDrafter(model, spec.facts(None, target.files), described, check)
