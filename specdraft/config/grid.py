"""The axes of a grid, counted before they are listed, and which keys mean something at a point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from math import prod
from typing import Any

from hydra.core.override_parser.types import Glob, Override, QuotedString, RangeSweep
from omegaconf import DictConfig, OmegaConf

from specdraft.config.files import ConfigFiles
from specdraft.config.overrides import parse, refuse_resolvers
from specdraft.config.settings import Settings
from specdraft.errors import ConfigError


def most_combinations(base: DictConfig, parsed: list[Override]) -> int:
    """How large a grid may be: it counts before there are any points."""
    key = "most_combinations"
    given = next((o for o in parsed if o.key_or_group == key), None)
    most = given.value() if given else base.get(key, Settings.most_combinations)
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        said = given.input_line if given else f"{key}={most}"
        raise ConfigError(f"{said} is not a limit of the grid; expected one whole number, 1 or more")
    return most


def check_count(axes: Mapping[str, list[Any]], most: int) -> None:
    """Raise `ConfigError` for a grid of more than `most` combinations."""
    if (count := prod(map(len, axes.values()))) > most:
        sizes = " x ".join(f"{len(values)} of {axis}" for axis, values in axes.items())
        raise ConfigError(f"the grid has {count} combinations ({sizes}), {_too_many(most)}")


def _too_many(most: int) -> str:
    return f"more than most_combinations={most}; leave some out, or raise most_combinations"


def axes_of(
    base: DictConfig, parsed: list[Override], files: ConfigFiles, experiment: str | None, most: int
) -> dict[str, list[Any]]:
    """Axis -> its values: the grid of the study or experiment, with what the command line says instead."""
    grid = base.get("grid") or {}
    if experiment and "grid" in (content := OmegaConf.load(files.folder / "experiment" / f"{experiment}.yaml")):
        grid = content.grid or {}
    if not isinstance(grid, Mapping):
        raise ConfigError(f"grid={grid!r}: expected axes, each key: sweep string")
    refuse_resolvers(OmegaConf.to_container(OmegaConf.create(dict(grid))), "grid")
    grid = OmegaConf.to_container(OmegaConf.create(dict(grid)), resolve=True)
    assert isinstance(grid, dict)
    said = {o.key_or_group for o in parsed}
    said |= {key.split(".")[0] for key in said}
    axes = {}
    for key, values in {str(key): values for key, values in grid.items()}.items():
        if not any(key == s or key.startswith(f"{s}.") for s in said):
            axes[key] = _at_most(most, parse(f"{key}={_sweep_string(values)}"), files)
    for override in parsed:
        if override.is_sweep_override():
            axes[override.key_or_group] = _at_most(most, override, files)
    return axes


def _at_most(most: int, override: Override, files: ConfigFiles) -> list[Any]:
    """The values of an axis; those of a range are counted before they are listed."""
    pattern = override.value()
    if isinstance(pattern, RangeSweep):
        try:
            count = sum(1 for _ in islice(pattern.range(), most + 1))
        except ValueError as error:
            raise ConfigError(f"{override.input_line!r} is not a range: {error}") from error
        if count > most:
            raise ConfigError(f"{override.input_line!r} has {_too_many(most)}")
    return list(_values(override, files))


def _sweep_string(values: Any) -> str:
    return ",".join(map(str, values)) if isinstance(values, list) else str(values)


def _values(override: Override, files: ConfigFiles) -> Iterator[Any]:
    if not override.is_sweep_override():
        yield override.value()
        return
    pattern = override.value()
    if isinstance(pattern, Glob):
        names = pattern.filter(files.choices(override.key_or_group))
        if not names:
            raise ConfigError(f"{override.input_line!r} matches no {override.key_or_group}")
        yield from names
        return
    yield from map(_unquoted, override.sweep_iterator())


def _unquoted(value: Any) -> Any:
    if isinstance(value, list):
        return [_unquoted(item) for item in value]
    return value.text if isinstance(value, QuotedString) else value


class Parameters:
    """Which keys below a group apply to which of its choices, where the grid has several: `tree.k` to `kary` only.

    Args:
        of_choices: group -> choice -> the names of its parameters.
    """

    def __init__(self, of_choices: Mapping[str, Mapping[str, set[str]]]) -> None:
        self._of_choices = of_choices

    def apply(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether a key has a meaning at this point; a key that has none at any is left to whoever checks it."""
        choices = self._having(key)
        return not choices or str(values[key.partition(".")[0]]) in choices

    def notes(self, keys: Iterable[str]) -> list[str]:
        """A line for each key that applies to some choices only."""
        lines = []
        for key in keys:
            group, choices = key.partition(".")[0], self._having(key)
            if others := [c for c in self._of_choices.get(group, ()) if choices and c not in choices]:
                lines.append(f"{key} applies to {group}={','.join(choices)}; without it: {', '.join(others)}")
        return lines

    def _having(self, key: str) -> list[str]:
        group, _, parameter = key.partition(".")
        name = parameter.partition(".")[0]
        return [choice for choice, names in self._of_choices.get(group, {}).items() if name in names]
