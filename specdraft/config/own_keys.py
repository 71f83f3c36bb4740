"""Keys of one command, below a name that belongs to no study: `fit.text=FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from specdraft.config.files import ConfigFiles
from specdraft.config.overrides import override_groups, override_keys, parse
from specdraft.config.typed import typed
from specdraft.errors import ConfigError


def own_keys(name: str, overrides: list[str], schema: type) -> tuple[Any, list[str]]:
    """What the overrides `name.KEY=VALUE` say, as their dataclass, and the other overrides.

    Raises:
        ConfigError: such an override cannot be parsed, is swept, or names no field or a value of another type.
    """
    return _over(OmegaConf.create({}), name, overrides, schema)


def own_group(
    name: str, default: str, overrides: list[str], schema: type, config_dir: Path | None = None
) -> tuple[Any, list[str]]:
    """As `own_keys`, over what a file of the group of this name says: `name=FILE` chooses it, else it is `default`.

    Raises:
        ConfigError: as `own_keys`; there is no such file, or it says what `schema` does not know.
    """
    chosen = [text for text in overrides if override_keys([text]) == [name]]
    file = str(_value(chosen[-1])) if chosen else default
    with ConfigFiles(config_dir, {}) as files:
        node = files.alone(name, file)
    return _over(node, name, [text for text in overrides if text not in chosen], schema)


def _over(node: DictConfig, name: str, overrides: list[str], schema: type) -> tuple[Any, list[str]]:
    mine = [text for text, group in zip(overrides, override_groups(overrides), strict=True) if group == name]
    for text in mine:
        value = _value(text)
        if (key := parse(text).key_or_group.removeprefix(f"{name}.")) == name:
            raise ConfigError(f"{text}: expected {name}.KEY=VALUE")
        OmegaConf.update(node, key, value, force_add=True)
    return typed(name, node, schema), [text for text in overrides if text not in mine]


def _value(text: str) -> Any:
    override = parse(text)
    if override.is_sweep_override():
        raise ConfigError(f"{override.input_line}: one value at a time")
    return override.value()
