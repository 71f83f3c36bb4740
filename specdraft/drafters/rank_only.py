"""What drafters without probabilities have in common: what they refuse."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self

from specdraft.drafters.base import Described, DrafterSpec, DrafterTraits, Expansion, GivenTrees, RecordedText, RowOf
from specdraft.errors import ConfigError
from specdraft.trees.shapes import NestedPlan

if TYPE_CHECKING:
    import torch


class RankOnlyDrafter:
    """A drafter that ranks what it proposes and has no distribution. Args: spec: which drafter it is."""

    def __init__(self, spec: DrafterSpec) -> None:
        self._spec = spec

    @property
    def traits(self) -> DrafterTraits:
        """See `Drafter.traits`."""
        return self._spec.traits

    def another(self, row_of: RowOf) -> Self:
        """See `Drafter.another`: it runs no model."""
        return copy.copy(self)

    def logits_along(self, texts: Sequence[RecordedText], at_once: int) -> Iterator[torch.Tensor]:
        """See `Drafter.logits_along`: there are none."""
        self._refuse()

    def expand(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Expansion]:
        """See `Drafter.expand`: there is nothing to choose nodes by."""
        self._refuse()

    def describe_trees(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Described]:
        """See `expand`."""
        self._refuse()

    def score(
        self, texts: Sequence[RecordedText], trees: Sequence[GivenTrees], temperature: float, featured: bool = False
    ) -> Iterator[Described]:
        """See `Drafter.score`: there is nothing to score by."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(f"drafter={self._spec.kind} has no probabilities")

    def describe(self) -> dict[str, Any]:
        """See `Drafter.describe`."""
        return self._spec.as_dict()
