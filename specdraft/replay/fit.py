"""Trees fitted to traces: which static tree would have been the best one?

In a study a tree is never scored on prompts that it was fitted on: prompts are halved (within their categories,
seeded), each half is scored with the tree of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import Plan, Shape, StaticPlan
from specdraft.trees.shapes.fitted import FOLDS
from specdraft.trees.topology import Topology


class PlanOnPrompts(NamedTuple):
    """A plan, and the prompts that it is for."""

    plan: Plan
    prompts: np.ndarray  # [m] indices


class Fits:
    """Fitted trees of one list of prompts, of any shape and budget: budgets of one shape share what they can.

    Args:
        packed: ranks of the prompts' trajectories (see `PackedRanks`).
        fold: `[P]` the fold of each prompt (see `folds`).
    """

    def __init__(self, packed: PackedRanks, fold: np.ndarray) -> None:
        self._packed, self._fold = packed, fold
        self._fits: dict[tuple[str, int | None], Callable[[int], Topology]] = {}

    def resolve(self, shape: Shape, node_budget: int) -> list[PlanOnPrompts]:
        """See `resolve`."""
        everyone = np.arange(len(self._packed.last))
        if not shape.fitted:
            return [PlanOnPrompts(shape.at(node_budget), everyone)]
        if shape.in_sample:
            return [PlanOnPrompts(self._plan(shape, node_budget, None), everyone)]
        folds = ((number, everyone[self._fold == number]) for number in range(FOLDS))
        return [PlanOnPrompts(self._plan(shape, node_budget, number), members) for number, members in folds]

    def _plan(self, shape: Shape, node_budget: int, fold: int | None) -> StaticPlan:
        """The tree of a fold, which is fitted on the others; of None, fitted on everyone."""
        key = repr(shape.identity()), fold
        if key not in self._fits:
            others = self._packed if fold is None else self._packed.of(np.flatnonzero(self._fold != fold))
            self._fits[key] = shape.fits(others)
        return StaticPlan(self._fits[key](node_budget))


def resolve(shape: Shape, node_budget: int, packed: PackedRanks, fold: np.ndarray) -> list[PlanOnPrompts]:
    """The plans that a shape's prompts are decoded with: each prompt is in one of them.

    A fitted shape has one tree a fold, fitted on the others; one that is fitted in-sample has one tree fitted on
    everyone. Other shapes have one plan.

    Args:
        shape, node_budget: what to decode with.
        packed: ranks of the prompts' trajectories (see `PackedRanks`).
        fold: `[P]` the fold of each prompt (see `folds`).
    """
    return Fits(packed, fold).resolve(shape, node_budget)


def fit_on_all(shape: Shape, node_budget: int, packed: PackedRanks) -> StaticPlan:
    """A fitted shape's tree on all of these trajectories."""
    return StaticPlan(shape.fit(node_budget, packed))
