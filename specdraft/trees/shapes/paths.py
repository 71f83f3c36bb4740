"""A tree that the user writes down as rank paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from specdraft.errors import ConfigError, TreeError
from specdraft.trees.shapes.base import StaticShape
from specdraft.trees.topology import RankPath, Topology


@dataclass
class Paths(StaticShape):
    """Exactly the nodes listed, whatever the budget: `tree.paths=[[0],[1],[0,0]]`."""

    kind: str = "paths"
    sized: ClassVar[bool] = True
    paths: list[list[int]] = field(default_factory=list)

    def check(self) -> None:
        if not self.paths:
            raise ConfigError("tree.paths is empty; expected rank paths, as tree.paths=[[0],[1],[0,0]]")
        try:
            Topology.from_paths(self.paths)
        except TreeError as error:
            raise ConfigError(f"tree.paths: {error}") from error

    def layout(self) -> Iterator[RankPath]:
        return (tuple(path) for path in self.paths)

    @property
    def label(self) -> str:
        """`paths-` and a digest of the nodes, so that two trees have two names."""
        nodes = sorted(tuple(path) for path in self.paths)
        return f"paths-{hashlib.sha256(str(nodes).encode()).hexdigest()[:6]}"
