"""Every node has the same number of children."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from specdraft.trees.shapes.base import StaticShape, breadth_first, check_positive
from specdraft.trees.topology import RankPath


@dataclass
class Kary(StaticShape):
    """The first `budget` nodes, breadth first, of the tree in which every node has `k` children."""

    kind: str = "kary"
    k: int = 2

    def check(self) -> None:
        check_positive(self, "k")

    def layout(self) -> Iterator[RankPath]:
        return breadth_first(repeat(self.k))
