"""Which keys there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from hydra.core.override_parser.types import Override

from specdraft.config.settings import CostSpec, OutputSpec, ResourceSpec, Settings
from specdraft.config.typed import Schema
from specdraft.errors import ConfigError, did_you_mean


def check_key(override: Override, schemas: Mapping[str, Schema]) -> None:
    """Raise `ConfigError` for an override of no key or group, or of what cannot be chosen."""
    top = override.key_or_group.split(".")[0]
    check_keys([override.key_or_group], schemas, "experiment")
    if override.package is not None:
        raise ConfigError(f"{override.input_line!r}: a package (@{override.package}) cannot be chosen; leave it out")
    if top == "experiment" and override.is_sweep_override():
        raise ConfigError(f"{override.input_line!r}: one experiment at a time")


def check_keys(keys: Iterable[str], schemas: Mapping[str, Schema], *more: str) -> None:
    """Raise `ConfigError` for keys that are neither a setting, nor below a group, nor below one of `more`."""
    known = {f.name for f in dataclasses.fields(Settings)} | set(schemas) | set(more)
    for top in (key.split(".")[0] for key in keys):
        if top == "experiment" and top not in known:
            raise ConfigError("an experiment's file must begin with '# @package _global_'")
        if top not in known:
            below = _below(top, schemas)
            hint = f"; did you mean {' or '.join(map(repr, below))}?" if below else did_you_mean(top, known)
            raise ConfigError(f"{top!r} is not a key or group{hint}")


def _below(name: str, schemas: Mapping[str, Schema]) -> list[str]:
    """The keys of this name that belong to a group."""
    classes = {group: [schema] if isinstance(schema, type) else schema.values() for group, schema in schemas.items()}
    nested: dict[str, list[type]] = {"output": [OutputSpec], "cost": [CostSpec], "resources": [ResourceSpec]}
    having = {
        group
        for group, kinds in {**classes, **nested}.items()
        for kind in kinds
        if name in {f.name for f in dataclasses.fields(kind)}
    }
    return [f"{group}.{name}" for group in sorted(having)]
