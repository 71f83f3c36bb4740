"""Keys of one command, below a name that belongs to no study: `fit.text=FILE`."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from specdraft.config.overrides import override_groups, parse
from specdraft.config.typed import typed
from specdraft.errors import ConfigError


def own_keys(name: str, overrides: list[str], schema: type) -> tuple[Any, list[str]]:
    """What the overrides `name.KEY=VALUE` say, as their dataclass, and the other overrides.

    Raises:
        ConfigError: such an override cannot be parsed, is swept, or names no field or a value of another type.
    """
    mine = [text for text, group in zip(overrides, override_groups(overrides), strict=True) if group == name]
    node = OmegaConf.create({})
    for override in map(parse, mine):
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: one value at a time")
        key = override.key_or_group.removeprefix(f"{name}.")
        if key == name:
            raise ConfigError(f"{override.input_line}: expected {name}.KEY=VALUE")
        OmegaConf.update(node, key, override.value(), force_add=True)
    return typed(name, node, schema), [text for text in overrides if text not in mine]
