"""Shapes whose tree is fitted to recorded trajectories: the plan is made when the traces are there.

A tree is fitted on one half of the prompts and scored on the other one (see `trace.fit`), so these
shapes run in replayed sweeps only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from specdraft.errors import ConfigError
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes.base import DraftView, ShapeLabel, check_budget, check_positive


@dataclass(frozen=True)
class FittedPlan:
    """A budget and the limits of a tree that is not known yet."""

    shape: FittedShape
    nodes: int
    dynamic: ClassVar[bool] = False
    topology: ClassVar[None] = None

    @property
    def depth(self) -> int:
        """The most levels that the tree can have."""
        return min(self.nodes, self.shape.max_depth)

    @property
    def room(self) -> int:
        """The most nodes that the limits leave room for, as far as the budget asks."""
        room = level = 0
        for _ in range(self.depth):
            level = min(max(level, 1) * self.shape.max_children, self.nodes)
            room += level
        return min(room, self.nodes)

    def expand(self, view: DraftView) -> DraftTree:
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise `ConfigError`: without traces there is no tree."""
        raise ConfigError(f"tree={self.shape.kind} is fitted to traces; it runs in a sweep with engine=replay")


@dataclass
class FittedShape(ShapeLabel):
    """Limits of a fitted tree: draft levels, and children of a node."""

    kind: str = ""
    max_depth: int = 32
    max_children: int = 16
    sized: ClassVar[bool] = False

    def at(self, node_budget: int) -> FittedPlan:
        """See `Shape.at`; nothing is fitted here."""
        check_budget(node_budget)
        check_positive(self, "max_depth")
        check_positive(self, "max_children")
        return FittedPlan(self, node_budget)


@dataclass
class Measured(FittedShape):
    """The rank paths that were accepted most often on the other half of the prompts."""

    kind: str = "measured"


@dataclass
class Sequoia(FittedShape):
    """Sequoia's optimal tree for the share of tokens at each draft rank on the other half of the prompts."""

    kind: str = "sequoia"


@dataclass
class Hindsight(FittedShape):
    """`measured` fitted on the very prompts that it is scored on: a reference, never a winner, no bound."""

    kind: str = "hindsight"
    reference: ClassVar[bool] = True
