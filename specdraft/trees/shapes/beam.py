"""Several chains side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from specdraft.trees.shapes.base import StaticShape, check_positive
from specdraft.trees.topology import RankPath


@dataclass
class Beam(StaticShape):
    """The root's `width` best children, each the head of a chain; all chains deepen in turn."""

    kind: str = "beam"
    width: int = 2

    def check(self) -> None:
        check_positive(self, "width")

    def layout(self) -> Iterator[RankPath]:
        return ((head, *(0,) * below) for below in count() for head in range(self.width))
