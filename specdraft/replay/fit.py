"""Trees fitted to traces: which static tree would have been the best one?

In a study a tree is never scored on prompts that it was fitted on: prompts are halved (within their categories,
seeded), each half is scored with the tree of the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import Plan, Shape, StaticPlan
from specdraft.trees.shapes.fitted import FOLDS


class PlanOnPrompts(NamedTuple):
    """A plan, and the prompts that it is for."""

    plan: Plan
    prompts: np.ndarray  # [m] indices


def resolve(shape: Shape, node_budget: int, packed: PackedRanks, fold: np.ndarray) -> list[PlanOnPrompts]:
    """The plans that a shape's prompts are decoded with: each prompt is in one of them.

    A fitted shape has one tree a fold, fitted on the others; one that is fitted in-sample has one tree fitted on
    everyone. Other shapes have one plan.

    Args:
        shape, node_budget: what to decode with.
        packed: ranks of the prompts' trajectories (see `PackedRanks`).
        fold: `[P]` the fold of each prompt (see `folds`).
    """
    everyone = np.arange(len(packed.last))
    if not shape.fitted:
        return [PlanOnPrompts(shape.at(node_budget), everyone)]
    if shape.in_sample:
        return [PlanOnPrompts(fit_on_all(shape, node_budget, packed), everyone)]
    return [
        PlanOnPrompts(fit_on_all(shape, node_budget, packed.of(everyone[fold != number])), everyone[fold == number])
        for number in range(FOLDS)
    ]


def fit_on_all(shape: Shape, node_budget: int, packed: PackedRanks) -> StaticPlan:
    """A fitted shape's tree on all of these trajectories."""
    return StaticPlan(shape.fit(node_budget, packed))
