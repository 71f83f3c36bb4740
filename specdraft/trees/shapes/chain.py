"""One candidate sequence: each node has one child."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from specdraft.trees.shapes.base import StaticShape
from specdraft.trees.topology import RankPath


@dataclass
class Chain(StaticShape):
    """One candidate sequence: `budget` levels of one node each."""

    kind: str = "chain"

    def layout(self) -> Iterator[RankPath]:
        return ((0,) * depth for depth in count(1))
