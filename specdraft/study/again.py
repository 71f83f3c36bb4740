"""The combinations of a study that was run, made again from the configuration that its folder keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from specdraft.config import compose_study, override_text
from specdraft.drafters.pair import PairFiles, find_pair
from specdraft.study.combination import Combination
from specdraft.study.pair_names import named_points
from specdraft.study.plan import combination_at
from specdraft.study.points import schemas

BUDGET = "budget"


def combinations_again(config: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Combination]:
    """The combinations of these rows.

    Args:
        config: a study's resolved configuration with its grid (`config.yaml`).
        rows: combination -> its key columns, of which `pair`, `tree` and `budget` are read.

    Returns:
        What can be made again and is the same, by its name.

    Raises:
        ConfigError, ModelError: what the configuration names is not here, or is no longer understood.
    """
    budgets, wanted = {int(row[BUDGET]) for row in rows.values()}, {(row["pair"], row["tree"]) for row in rows.values()}
    pairs: dict[str, PairFiles] = {}
    made: dict[str, Combination] = {}
    for point in named_points(compose_study(overrides_of(config, budgets), schemas()).points):
        spec, drafter = point.groups["pair"], point.groups["drafter"]
        if (spec.name, point.groups["tree"].label) not in wanted:
            continue
        key = repr((spec, drafter))
        if key not in pairs:
            pairs[key] = find_pair(spec, drafter)
        combination = combination_at(point, pairs[key])
        if combination.identifier in rows:
            made[combination.identifier] = combination
    return made


def overrides_of(config: Mapping[str, Any], budgets: Collection[int] = ()) -> list[str]:
    """A resolved configuration as overrides that make it again; with `budgets` no others, where its grid has them."""
    grid = {key: list(values) for key, values in (config.get("grid") or {}).items()}
    if BUDGET in grid and (some := [budget for budget in grid[BUDGET] if budget in budgets]):
        grid[BUDGET] = some
    axes = [f"{key}={','.join(map(override_text, values))}" for key, values in grid.items()]
    fixed = [line for group, said in config.items() if group != "grid" for line in _fixed(group, said, grid)]
    return [*fixed, *axes]


def _fixed(group: str, said: Any, grid: Mapping[str, Any]) -> Iterator[str]:
    """What a configuration says of a group beside its axes, or of a key of none."""
    if group == "pair" and group in grid:
        return
    kind = said.get("kind") if isinstance(said, Mapping) and group != "prompts" else None
    if kind is not None and group not in grid:
        yield f"{group}={override_text(kind)}"
    for key, value in _leaves(group, said):
        if key not in grid and (kind is None or key != f"{group}.kind"):
            yield f"{key}={override_text(value)}"


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, inner in value.items():
        yield from _leaves(f"{key}.{name}", inner)
