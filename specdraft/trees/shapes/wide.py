"""One level: the drafter's best next tokens side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from specdraft.trees.shapes.base import StaticShape
from specdraft.trees.topology import RankPath


@dataclass
class Wide(StaticShape):
    """`budget` children of the root."""

    kind: str = "wide"

    def layout(self) -> Iterator[RankPath]:
        return ((rank,) for rank in count())
