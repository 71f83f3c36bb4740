"""Draft-tree shapes, one file each: a rule that turns a node budget into a tree.

May import: the rest of trees and below. To add one: a file here with a dataclass that derives from `StaticShape` (a
layout), or from `FittedShape` (a fit), or that gives a plan of its own, and a YAML of the same name in `configs/tree/`.
An installed package brings one with an entry point `specdraft.shapes`.
"""

from __future__ import annotations

from functools import cache

from specdraft.config import kinds_in
from specdraft.trees.shapes.base import Limits, NestedPlan, Plan, Shape, StaticPlan, StaticShape, check_budget
from specdraft.trees.shapes.best_first import BestFirstPlan
from specdraft.trees.shapes.fitted import FittedShape
from specdraft.trees.shapes.published import Published, published_trees

__all__ = [
    "BestFirstPlan",
    "FittedShape",
    "Limits",
    "NestedPlan",
    "Plan",
    "Shape",
    "StaticPlan",
    "StaticShape",
    "check_budget",
    "is_named",
    "is_reference",
    "is_sized",
    "registry",
]


def registry() -> dict[str, type[Shape]]:
    """`kind` -> the dataclass that declares its parameters, found in the files of this folder, and
    among the entry points `specdraft.shapes` of installed packages."""
    return kinds_in(__name__, "specdraft.shapes")


def is_reference(label: str) -> bool:
    """Whether a `tree` column's label (a kind and its changed parameters, `kind-x4`) is of a shape that is a reference:
    it is shown beside the others, and never wins."""
    return label.partition("-")[0] in _reference_kinds()


def is_sized(label: str) -> bool:
    """Whether a `tree` column's label is of a shape that has a size of its own and ignores the budget."""
    return label in _published_labels() or label.partition("-")[0] in _sized_kinds()


def is_named(label: str) -> bool:
    """Whether a `tree` column's label is no shape's: a name that someone gave a tree of their own (`tree.name`)."""
    return label not in _published_labels() and label.partition("-")[0] not in registry()


@cache
def _sized_kinds() -> frozenset[str]:
    return frozenset(kind for kind, shape in registry().items() if shape.sized)


@cache
def _published_labels() -> frozenset[str]:
    return frozenset(Published(name=name).label for name in published_trees())


@cache
def _reference_kinds() -> frozenset[str]:
    return frozenset(kind for kind, shape in registry().items() if shape.reference)
