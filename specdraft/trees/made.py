"""Trees that are asked for again and again, each made once."""

from __future__ import annotations

from typing import Any

from specdraft.trees.shapes import Limits, Plan, Shape


class Trees:
    """What shapes are at node budgets. A shape is told by which object it is, and must not be changed meanwhile."""

    def __init__(self) -> None:
        self._limits: dict[tuple[int, int], tuple[Shape, Limits]] = {}  # a shape that is held keeps its `id`
        self._plans: dict[tuple[int, int], tuple[Shape, Plan]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process shapes are other objects: there everything is made anew."""
        return Trees, ()

    def limits(self, shape: Shape, budget: int) -> Limits:
        """See `Shape.limits`, also for what it raises."""
        key = id(shape), budget
        if key not in self._limits:
            self._limits[key] = shape, shape.limits(budget)
        return self._limits[key][1]

    def plan(self, shape: Shape, budget: int) -> Plan:
        """See `Shape.at`, also for what it raises."""
        key = id(shape), budget
        if key not in self._plans:
            self._plans[key] = shape, shape.at(budget)
        return self._plans[key][1]
