"""The costs that combinations are estimated by: measured or kept, or from a table, for each point that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from specdraft.bench.cost_file import read_costs
from specdraft.bench.curve import CostCurve
from specdraft.bench.points import CostPoint
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.study.combination import Combination


def cost_point(combination: Combination) -> CostPoint:
    """What its times are estimated for."""
    return CostPoint(combination.settings.cost.context, combination.settings.cost.batch)


def table_costs(combination: Combination) -> CostCurve:
    """A combination's costs in the table that its study names.

    Raises:
        ConfigError: there is no such table, it is of another pair, or not of this point.
    """
    path = combination.settings.cost.table
    assert path is not None
    told = ("costs", path, combination.pair.weights, repr(combination.pair.drafter))
    curves = combination.once.of(told, lambda: read_costs(Path(path), combination.pair))
    point = cost_point(combination)
    for curve in curves:
        if curve.point == point:
            return curve
    there = ", ".join(str(curve.point) for curve in curves)
    raise ConfigError(f"cost.table={path}: has no costs {point}; it has those {there}")


def note_on_table(combination: Combination) -> str:
    """Whose costs a table holds."""
    curve = table_costs(combination)
    threads, when = f"{curve.threads} thread{'' if curve.threads == 1 else 's'}", ""
    if curve.measured is not None:
        when = f", measured {curve.measured.date}"
    name = Path(combination.settings.cost.table or "").name
    return f"cost.table={name}: times are estimated for {curve.device}, {threads}{when}, whatever runs here"


def costs_of(
    combinations: Iterable[Combination], pair: Pair, measured: Callable[[CostPoint, int], CostCurve | None]
) -> dict[CostPoint, CostCurve]:
    """The costs of every point that combinations of one pair ask for; none where they are not to be measured.

    Args:
        combinations: of one pair.
        pair: theirs.
        measured: gives the costs at a point, of trees up to so many tokens with the root, where no table has them.
    """
    at_points: dict[CostPoint, list[Combination]] = {}
    for combination in combinations:
        at_points.setdefault(cost_point(combination), []).append(combination)
    found = {}
    for point, asked in at_points.items():
        settings, curve = asked[0].settings.cost, None
        if settings.table is not None:
            curve = table_costs(asked[0])
        elif settings.measure != "off" and not pair.files.target.spec.served:
            curve = measured(point, 1 + max(combination.limits.nodes for combination in asked))
        if curve is not None:
            found[point] = curve
    return found
