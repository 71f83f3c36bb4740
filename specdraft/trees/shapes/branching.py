"""A number of children per depth, as SpecInfer's expansion configurations (Miao et al. 2024, section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat

from specdraft.errors import ConfigError
from specdraft.trees.shapes.base import StaticShape, breadth_first
from specdraft.trees.topology import RankPath


@dataclass
class Branching(StaticShape):
    """Nodes of depth d - 1 have `factors[d - 1]` children; the last factor repeats. Breadth first."""

    kind: str = "branching"
    factors: list[int] = field(default_factory=lambda: [4, 2, 1])

    def check(self) -> None:
        if not self.factors or min(self.factors) < 1:
            raise ConfigError(
                f"tree.factors={self.factors} is out of range; expected one or more numbers, each 1 or more"
            )

    def layout(self) -> Iterator[RankPath]:
        return breadth_first(chain(self.factors, repeat(self.factors[-1])))
