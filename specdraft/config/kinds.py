"""What may be named by a `kind`: found in a package's files and among plugins."""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any

from specdraft.errors import ConfigError


@cache
def kinds_in(package: str, plugins: str) -> dict[str, Any]:
    """`kind` -> the dataclass that declares its parameters, found in the files of a package's folder, and among the
    entry points of installed packages.

    Args:
        package: the folder.
        plugins: the group of the entry points; each names such a dataclass.

    Raises:
        ConfigError: an entry point cannot be loaded, is no dataclass with a `kind`, or has the `kind` of another.
    """
    kinds: dict[str, Any] = {}
    for module_info in iter_modules(import_module(package).__path__):
        module = import_module(f"{package}.{module_info.name}")
        for member in vars(module).values():
            kind = getattr(member, "kind", "")
            local = isinstance(member, type) and member.__module__ == module.__name__
            if kind and local and dataclasses.is_dataclass(member):
                kinds[kind] = member
    for entry_point in entry_points(group=plugins):
        where = f"entry point {entry_point.name} of {plugins} ({entry_point.value})"
        try:
            member = entry_point.load()
        except Exception as error:  # it is somebody else's code
            raise ConfigError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
        kind = getattr(member, "kind", "")
        if not (isinstance(member, type) and dataclasses.is_dataclass(member) and kind):
            raise ConfigError(f"{where}: expected a dataclass with a kind")
        if kinds.setdefault(kind, member) is not member:
            raise ConfigError(f"{where}: its kind {kind!r} is already that of {kinds[kind].__module__}")
    return kinds


def label(spec: Any, *left_out: str) -> str:
    """What a column says of a value with a `kind`: the kind, and the parameters that differ from their defaults.

    `beam` with `width: 3` is `beam-w3`; of a parameter's name the first letter of every word stays.
    """
    parts = [spec.kind]
    for parameter in dataclasses.fields(spec):
        value, factory = getattr(spec, parameter.name), parameter.default_factory
        default = factory() if factory is not dataclasses.MISSING else parameter.default
        if parameter.name not in ("kind", *left_out) and value != default:
            text = "x".join(map(str, value)) if isinstance(value, list) else str(value)
            parts.append("".join(word[0] for word in parameter.name.split("_")) + text)
    return "-".join(parts)
