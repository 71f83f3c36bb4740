"""The points of a grid as typed objects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from specdraft.config.files import ConfigFiles
from specdraft.config.overrides import override_text
from specdraft.config.settings import Settings
from specdraft.config.typed import Schema, typed

WHOLE = {field.name for field in dataclasses.fields(Settings) if field.type in ("int", "int | None")}


@dataclass(frozen=True)
class Point:
    """One point of the grid: the settings, one typed object per group, and how to say it again."""

    settings: Settings
    groups: dict[str, Any]
    overrides: tuple[str, ...]


class Resolver:
    """Builds points; every distinct part is composed and checked once."""

    def __init__(self, files: ConfigFiles, base: DictConfig, schemas: Mapping[str, Schema], chosen: list[str]) -> None:
        self._files, self._base, self._schemas, self._chosen = files, base, schemas, chosen
        self._nodes: dict[tuple[str, str], Any] = {}
        self._typed: dict[tuple[str, str], Any] = {}
        self._built: dict[tuple[str, str], Any] = {}
        self._settings: dict[Any, Settings] = {}

    def parameters(self, group: str, choices: list[Any]) -> dict[str, set[str]]:
        """Choice -> the names of its parameters; nothing for a group whose choices all have the same ones."""
        schema = self._schemas[group]
        if isinstance(schema, type):
            return {}
        kinds = {str(choice): self._choice(group, str(choice)).get("kind") for choice in choices}
        return {c: {f.name for f in dataclasses.fields(schema[kind])} for c, kind in kinds.items() if kind in schema}

    def point(self, values: dict[str, Any], given: list[Override]) -> Point:
        """The point at which each axis has its value, and that says what is given besides."""
        pairs = [(o.key_or_group, o.value()) for o in given] + list(values.items())
        below: dict[str, list[Any]] = {name: [] for name in ("", *self._schemas)}  # "" are the settings
        for key, value in pairs:
            top = key.partition(".")[0]
            below[top if top in below else ""].append((key, value))
        numbers = self._numbers(below[""])
        below[""] = [(key, value) for key, value in below[""] if key not in numbers]
        contents = {name: (name, repr(said)) for name, said in below.items()}
        if missing := [name for name, content in contents.items() if content not in self._built]:
            try:
                objects = self._build_all(missing, values, pairs)
            except InterpolationKeyError:  # they refer to keys of other groups
                objects = self._build_all(list(contents), values, pairs)
            self._built |= {contents[name]: objects[name] for name in missing}
        objects = {name: self._built[content] for name, content in contents.items()}
        said = [o.input_line or "" for o in given]
        texts = (*said, *(f"{axis}={override_text(v)}" for axis, v in values.items()))
        settings = self._with_numbers(contents[""], objects[""], numbers)
        return Point(settings, {name: objects[name] for name in self._schemas}, texts)

    def _numbers(self, said: list[tuple[str, Any]]) -> dict[str, int]:
        """What is said of settings that are whole numbers, and are: these need no composing, unless values refer to
        others."""
        if self._refers or "${" in repr(said):
            return {}
        return {key: value for key, value in said if key in WHOLE and type(value) is int}

    @cached_property
    def _refers(self) -> bool:
        """Whether any value of the configuration refers to another one."""
        return "${" in json.dumps(OmegaConf.to_container(self._base), default=str)

    def _with_numbers(self, content: tuple[str, str], settings: Settings, numbers: dict[str, int]) -> Settings:
        """The settings with these numbers; equal ones are one object."""
        key = content, *sorted(numbers.items())
        if numbers and key not in self._settings:
            self._settings[key] = dataclasses.replace(settings, **numbers)  # type: ignore[arg-type]
            self._settings[key].check()
        return self._settings[key] if numbers else settings

    def _build_all(self, names: list[str], values: dict[str, Any], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The objects of these groups (the settings are ""); what belongs to no other is composed for them."""
        tree = self._tree(names, values, pairs)
        return {name: self._build(name, tree) for name in names}

    def _tree(self, names: list[str], values: dict[str, Any], pairs: list[tuple[str, Any]]) -> DictConfig:
        def wanted(key: str) -> bool:
            top = key.partition(".")[0]
            return key != "grid" and (top if top in self._schemas else "") in names

        parts: dict[str, Any] = {
            str(key): OmegaConf.create({"v": self._base[key]}).v for key in self._base if wanted(str(key))
        }
        for key, value in values.items():
            if key in self._files.groups and wanted(key):
                parts[key] = self._choice(key, str(value))
        tree = OmegaConf.create(parts)
        for key, value in pairs:
            if key not in self._files.groups and wanted(key):
                OmegaConf.update(tree, key, value, merge=False, force_add=True)
        return tree

    def _build(self, name: str, tree: DictConfig) -> Any:
        """The object of a group, or the settings."""
        if name:
            return self._object(name, tree[name], self._schemas[name])
        names = {f.name for f in dataclasses.fields(Settings)}
        settings: Settings = self._object(
            "", OmegaConf.masked_copy(tree, [str(k) for k in tree if str(k) in names]), Settings
        )
        settings.check()
        return settings

    def _choice(self, group: str, choice: str) -> Any:
        if (group, choice) not in self._nodes:
            self._nodes[group, choice] = self._files.choice(group, choice, self._chosen)
        return self._nodes[group, choice]

    def _object(self, key: str, node: Any, schema: Schema) -> Any:
        content = key, json.dumps(OmegaConf.to_container(node, resolve=True), sort_keys=True, default=str)
        if content not in self._typed:
            self._typed[content] = typed(key, node, schema)
        return self._typed[content]
