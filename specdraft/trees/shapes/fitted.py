"""Shapes whose tree is fitted to recorded trajectories: there is a plan once the traces are there.

In a study a tree is fitted on one half of the prompts and scored on the other one (see `replay.fit`). To add such a
shape, write a file in this folder with a dataclass that derives from `FittedShape` and says how ranks become a tree.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NoReturn

from specdraft.errors import ConfigError
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes.base import BaseShape, Limits, check_budget, check_positive
from specdraft.trees.topology import Topology

FOLDS = 2  # prompts are halved: what is fitted on one half is scored on the other


@dataclass
class FittedShape(BaseShape):
    """Limits of a fitted tree: draft levels, and children of a node."""

    kind: str = ""
    max_depth: int = 32
    max_children: int = 16
    fitted: ClassVar[bool] = True

    def limits(self, node_budget: int) -> Limits:
        """See `Shape.limits`; the tree itself is not known yet."""
        check_budget(node_budget)
        check_positive(self, "max_depth")
        check_positive(self, "max_children")
        return Limits(node_budget, min(node_budget, self.max_depth), self.max_children)

    def at(self, node_budget: int) -> NoReturn:
        """Raise `ConfigError`: without traces there is no tree."""
        raise ConfigError(f"tree={self.kind} is fitted to traces; there is no tree before")

    def levels(self, packed: PackedRanks) -> int:
        """Draft levels at most: no more than the drafter has."""
        return min(self.max_depth, packed.levels or self.max_depth)

    @abstractmethod
    def fit(self, node_budget: int, packed: PackedRanks) -> Topology:
        """See `Shape.fit`."""
