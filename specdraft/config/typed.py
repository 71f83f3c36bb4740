"""A config node as the dataclass that says what it may hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from specdraft.errors import ConfigError, did_you_mean

# A group's schema: one dataclass, or `kind` -> dataclass.
Schema = type | Mapping[str, type]


def typed(key: str, node: Any, schema: Schema) -> Any:
    """Check a config node against its dataclass and build the object.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or the `kind` is not registered.
    """
    others: Mapping[str, type] = {}  # kinds that it is not
    if not isinstance(schema, type):
        kind = node.get("kind") if isinstance(node, DictConfig) else None
        if kind not in schema:
            raise ConfigError(f"{key}.kind={kind!r} is not known{did_you_mean(str(kind), schema)}")
        others, schema = schema, schema[str(kind)]
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), node))
    except ValidationError as error:
        where = (
            _full_key(key, error)
            if error.full_key or error.key
            else ".".join(filter(None, (key, _culprit(node, schema))))
        )
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
    except OmegaConfBaseException as error:
        known = [f.name for f in dataclasses.fields(schema)]
        name = str(error.key)
        if name in known:
            raise ConfigError(f"{_full_key(key, error)}: {str(error).splitlines()[0]}") from error
        inner = error.object_type if dataclasses.is_dataclass(error.object_type) else schema
        hint = did_you_mean(name, [f.name for f in dataclasses.fields(inner)])
        having = [other for other in others if name in {f.name for f in dataclasses.fields(others[other])}]
        if having and inner is schema:
            hint = f" of {key}={node['kind']}; it goes with {key}={'|'.join(having)}"
        raise ConfigError(f"{_full_key(key, error)} is not a key{hint}") from error


def _full_key(key: str, error: OmegaConfBaseException) -> str:
    return ".".join(part for part in (key, str(error.full_key or error.key or "")) if part)


def _culprit(node: Any, schema: type) -> str:
    """The key whose value does not fit, where omegaconf does not say."""
    for key in node if isinstance(node, DictConfig) else ():
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {key: node[key]})
        except OmegaConfBaseException:
            return str(key)
    return ""
