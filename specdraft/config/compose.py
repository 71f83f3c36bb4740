"""A study out of `sweep.yaml`, the chosen files and the overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from specdraft.config.files import ConfigFiles
from specdraft.config.grid import Parameters, axes_of, check_count, most_combinations
from specdraft.config.keys import check_key, check_keys
from specdraft.config.overrides import parse
from specdraft.config.points import Point, Resolver
from specdraft.config.typed import Schema, typed
from specdraft.errors import ConfigError


@dataclass(frozen=True)
class Study:
    """A composed study: its points, the resolved configuration as plain data, and what the user should know of it."""

    points: list[Point]
    resolved: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def yaml(self) -> str:
        """The resolved configuration with its grid."""
        return OmegaConf.to_yaml(OmegaConf.create(self.resolved))


def compose_study(overrides: list[str], schemas: Mapping[str, Schema], config_dir: Path | None = None) -> Study:
    """Compose `sweep.yaml`, apply overrides, expand the grid.

    Args:
        overrides: in Hydra's grammar; sweeps (`a,b`, `range`, `choice`, `glob`) become axes.
        schemas: group -> what its files may say.
        config_dir: the user's configs, which go before the bundled ones.

    Raises:
        ConfigError: an override cannot be parsed, or names a key, group or choice that is not there,
            or has a value of the wrong type or out of range.
    """
    try:
        return _compose_study(overrides, schemas, config_dir)
    except (HydraException, OmegaConfBaseException) as error:  # an interpolation, found out where it is resolved
        raise ConfigError(str(error).strip().splitlines()[0]) from error
    except RecursionError as error:
        raise ConfigError("the configuration refers to itself, or is nested too deeply") from error


def _compose_study(overrides: list[str], schemas: Mapping[str, Schema], config_dir: Path | None) -> Study:
    with ConfigFiles(config_dir, schemas) as files:
        by_key = {o.key_or_group: o for o in map(parse, overrides)}  # of a key that is given twice, the last counts
        parsed = list(by_key.values())
        for override in parsed:
            check_key(override, schemas)
        experiment = next(
            (str(o.value()) for o in parsed if o.key_or_group == "experiment" and not o.is_sweep_override()), None
        )
        chosen = [
            f"{o.key_or_group}={o.value()}"
            for o in parsed
            if o.key_or_group in files.groups and not o.is_sweep_override()
        ]
        base = files.compose(chosen)
        check_keys([str(key) for key in base if key != "grid"], schemas)
        most = most_combinations(base, parsed)
        axes = axes_of(base, parsed, files, experiment, most)
        check_keys(axes, schemas)
        check_count(axes, most)
        given = [o for o in parsed if not o.is_sweep_override()]
        fixed = [o for o in given if o.key_or_group not in files.groups]
        resolver = Resolver(files, base, schemas, chosen)
        groups = [group for group in axes if group in schemas and f"{group}.kind" not in {*by_key, *axes}]
        parameters = Parameters({group: resolver.parameters(group, axes[group]) for group in groups})
        points: dict[tuple[str, ...], Point] = {}  # where an axis has no effect, points are equal
        for values in product(*axes.values()):
            here = dict(zip(axes, values, strict=True))
            here = {axis: value for axis, value in here.items() if parameters.apply(axis, here)}
            point = resolver.point(here, [o for o in given if parameters.apply(o.key_or_group, here)])
            points.setdefault(point.overrides, point)
        for override in fixed:
            OmegaConf.update(base, override.key_or_group, override.value(), force_add=True)
        resolved = OmegaConf.to_container(base, resolve=True)
        assert isinstance(resolved, dict)
        notes = parameters.notes([*axes, *(o.key_or_group for o in fixed)])
        return Study(list(points.values()), {str(k): v for k, v in resolved.items()} | {"grid": axes}, notes)


def load_group(group: str, name: str, schema: Schema, config_dir: Path | None = None) -> Any:
    """One file of a group as its dataclass. Raises `ConfigError` where there is none."""
    with ConfigFiles(config_dir, {}) as files:
        return typed(group, files.choice(group, name, []), schema)
