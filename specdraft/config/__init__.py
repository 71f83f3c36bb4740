"""From YAML files and command-line overrides to the points of a study's grid.

Hydra composes the chosen file of each group and parses every override; omegaconf checks the result
against the dataclasses that the caller hands in. Each choice of a group is composed once, however many
points share it.

May import: errors. What may be asked of a YAML file is in `yaml_bounds.py`; a group's schema belongs to the floor that
it is about.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from itertools import accumulate, islice, product
from math import prod
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError
from yaml import YAMLError

from specdraft.config.yaml_bounds import check_yaml
from specdraft.errors import ConfigError, check_name, did_you_mean

# A group's schema: one dataclass, or `kind` -> dataclass.
Schema = type | Mapping[str, type]


RESOLVER = re.compile(r"\$\{[^{}\n]*(\$\{|:)")  # `${oc.env:HOME}`, and a resolver whose name is interpolated itself
COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)
ENGINES = ("auto", "live", "replay")
MOST_CHARACTERS = 10_000  # of one override: the parser reads a few thousand characters a second
DEEPEST = 30  # levels of brackets in one override
MOST_SHOWN = 60  # characters of an override that an error message repeats
OUT_OF_RANGE = "a whole number is out of range; expected one below 2**63"
LARGEST = 2**63 - 1  # a whole number that a table can hold
TUPLES = re.compile(r"""(['"]?)(\[[\s\d,()\[\]-]*\])\1""")  # rank paths as Python writes them: [(0,), (0, 0)]


@dataclass
class OutputSpec:
    """What else is written."""

    steps: bool = False  # steps.csv: one row per verification step


@dataclass
class Settings:
    """The keys of a study that belong to no group."""

    name: str = "default"
    budget: int = 8
    max_new_tokens: int = 64
    max_prompt_tokens: int | None = None
    engine: str = "auto"
    seed: int = 0
    repeats: int = 1
    report: bool = True  # figures and a report at the end of a sweep
    certify: bool = False
    most_combinations: int = 100_000  # a grid with more of them is refused before it is expanded
    output: OutputSpec = field(default_factory=OutputSpec)

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        for key, least in (("max_new_tokens", 1), ("max_prompt_tokens", 1), ("repeats", 1), ("seed", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ConfigError(f"{key}={value} is out of range; expected {least} or more")
        if self.engine not in ENGINES:
            raise ConfigError(f"engine={self.engine!r} is not known{did_you_mean(self.engine, ENGINES)}")
        if self.name in ("", "..") or Path(self.name).name != self.name:
            raise ConfigError(f"name={self.name!r} is not a study name; expected a plain file name")
        check_name("name", self.name)


@dataclass(frozen=True)
class Point:
    """One point of the grid: the settings, one typed object per group, and how to say it again."""

    settings: Settings
    groups: dict[str, Any]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A composed study: its points, the resolved configuration as plain data, and what the user should know of it."""

    points: list[Point]
    resolved: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def yaml(self) -> str:
        """The resolved configuration with its grid."""
        return OmegaConf.to_yaml(OmegaConf.create(self.resolved))


def bundled_config_dir() -> Path:
    """The package's configs: inside an installed package, beside it in a source tree."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


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
    with _Files(config_dir, schemas) as files:
        by_key = {o.key_or_group: o for o in map(_parse, overrides)}  # of a key that is given twice, the last counts
        parsed = list(by_key.values())
        for override in parsed:
            _check_key(override, schemas, files)
        experiment = next(
            (str(o.value()) for o in parsed if o.key_or_group == "experiment" and not o.is_sweep_override()), None
        )
        chosen = [
            f"{o.key_or_group}={o.value()}"
            for o in parsed
            if o.key_or_group in files.groups and not o.is_sweep_override()
        ]
        base = files.compose(chosen)
        _check_keys([str(key) for key in base if key != "grid"], schemas)
        most = _most_combinations(base, parsed)
        axes = _axes(base, parsed, files, experiment, most)
        _check_keys(axes, schemas)
        _check_count(axes, most)
        given = [o for o in parsed if not o.is_sweep_override()]
        fixed = [o for o in given if o.key_or_group not in files.groups]
        resolver = _Resolver(files, base, schemas, chosen)
        groups = [group for group in axes if group in schemas and f"{group}.kind" not in {*by_key, *axes}]
        parameters = _Parameters({group: resolver.parameters(group, axes[group]) for group in groups})
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


def read_json(file: Path, named: str) -> Any:
    """What a JSON file holds, which the user named as `named`. Raises `ConfigError` where it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{named}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{named}: not JSON: {error}") from error


def override_keys(overrides: Iterable[str]) -> list[str]:
    """The key that each override sets: of `+sampling.top_k=5` it is `sampling.top_k`."""
    return [text.lstrip("+~").partition("=")[0] for text in overrides]


def override_groups(overrides: Iterable[str]) -> list[str]:
    """The group, or key that belongs to no group, of each override: of `+sampling.top_k=5` it is `sampling`."""
    return [key.partition(".")[0] for key in override_keys(overrides)]


def unless_said(overrides: Iterable[str], defaults: Mapping[str, str]) -> list[str]:
    """A command's own defaults, those left out whose key the overrides set, or a key below it."""
    keys = override_keys(overrides)
    return [
        f"{key}={value}"
        for key, value in defaults.items()
        if not any(said == key or said.startswith(f"{key}.") for said in keys)
    ]


def load_group(group: str, name: str, schema: Schema, config_dir: Path | None = None) -> Any:
    """One file of a group as its dataclass. Raises `ConfigError` where there is none."""
    with _Files(config_dir, {}) as files:
        node = files.compose([f"{group}={name}"])[group]
        return typed(group, node, schema)


def typed(key: str, node: Any, schema: Schema) -> Any:
    """Check a config node against its dataclass and build the object.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or the `kind` is not registered.
    """
    if not isinstance(schema, type):
        kind = node.get("kind") if isinstance(node, DictConfig) else None
        if kind not in schema:
            raise ConfigError(f"{key}.kind={kind!r} is not known{did_you_mean(str(kind), schema)}")
        schema = schema[str(kind)]
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


class _Files:
    """The config folders as Hydra sees them: the user's files laid over the bundled ones."""

    def __init__(self, config_dir: Path | None, schemas: Mapping[str, Schema]) -> None:
        self._user, bundled = config_dir, bundled_config_dir()
        kinds = {group: schema for group, schema in schemas.items() if isinstance(schema, Mapping)}
        choices = [(group, kind) for group, registered in kinds.items() for kind in registered]
        self._plugins = [choice for choice in choices if not bundled.joinpath(*choice).with_suffix(".yaml").exists()]

    def __enter__(self) -> _Files:
        with ExitStack() as stack:
            self.folder = self._overlay(stack) if self._user or self._plugins else bundled_config_dir()
            stack.enter_context(initialize_config_dir(version_base="1.3", config_dir=str(self.folder.resolve())))
            self.groups = {path.name for path in self.folder.iterdir() if path.is_dir()} | {"experiment"}
            self._stack = stack.pop_all()
        return self

    def _overlay(self, stack: ExitStack) -> Path:
        """A folder of the bundled files, the user's, and one for each plugin, as long as `stack` is open."""
        user = self._user
        if user is not None and not user.is_dir():
            raise ConfigError(f"--config-dir {user}: no such folder")
        overlay = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for group, kind in self._plugins:
            overlay.joinpath(group).mkdir(exist_ok=True)
            overlay.joinpath(group, f"{kind}.yaml").write_text(f"kind: {kind}\n", encoding="utf-8")
        for folder in filter(None, (bundled_config_dir(), user)):
            for path in filter(Path.exists, folder.rglob("*.yaml")):
                if path.is_dir():
                    raise ConfigError(f"{path}: a folder; expected a YAML file")
                if folder is user:
                    check_yaml(path, str(path))
                copy = overlay / path.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                text = COMMENT.sub("", copy.read_text(encoding="utf-8", errors="replace"))
                _refuse_resolvers(text, str(path.relative_to(folder)))  # also in a defaults list
        return overlay

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def choices(self, group: str) -> list[str]:
        """The files of a group."""
        folder = self.folder / group
        return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))

    def compose(self, choices: list[str]) -> DictConfig:
        """`sweep.yaml` with these `group=choice` overrides."""
        for text in choices:
            group, _, choice = text.partition("=")
            if choice not in (known := self.choices(group)):
                raise ConfigError(f"{group}={choice}: there is no such {group}{did_you_mean(choice, known)}")
        try:
            composed: DictConfig = compose("sweep", overrides=choices)
            _refuse_resolvers(OmegaConf.to_container(composed), ", ".join(choices) or "sweep.yaml")
            return composed
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(str(error).strip().splitlines()[0]) from error
        except RecursionError as error:
            named = " ".join(["sweep.yaml", *choices])
            raise ConfigError(f"{named}: a config file includes itself in its defaults") from error
        except OSError as error:  # as Hydra calls a file that holds no keys
            raise ConfigError(f"{', '.join(choices)}: {error}; expected keys and values") from error
        except YAMLError as error:
            where = getattr(error, "problem_mark", None)
            place = (
                f"{Path(where.name).relative_to(self.folder)}, line {where.line + 1}" if where else ", ".join(choices)
            )
            raise ConfigError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from error


def _refuse_resolvers(content: Any, where: str) -> None:
    """Raise `ConfigError` for values that call a resolver: it could put an environment variable into results."""
    if isinstance(content, Mapping | list):
        for value in content.values() if isinstance(content, Mapping) else content:
            _refuse_resolvers(value, where)
    elif isinstance(content, str) and (call := RESOLVER.search(content)):
        hint = "a value may refer to other keys only, as ${budget}"
        raise ConfigError(f"{where}: {call.group()}...}} is refused; {hint}")


def _parse(text: str) -> Override:
    key, _, value = text.partition("=")
    if len(text) > MOST_CHARACTERS or _levels(value) > DEEPEST:
        limit = f"at most {MOST_CHARACTERS} characters and {DEEPEST} levels of brackets; larger values go into a file"
        raise ConfigError(f"{_shortened(text)} is too much for one override: {limit}")
    if "(" in value and (match := TUPLES.fullmatch(value)):
        text = f"{key}=" + re.sub(r",?\s*[)]", "]", match[2].replace("(", "["))
    _refuse_resolvers(text, repr(text))
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        hint = "" if "=" in text else "; expected key=value"
        raise ConfigError(f"{_shortened(text)} is not an override: {str(error).splitlines()[0]}{hint}") from error
    except ValueError as error:  # Python reads whole numbers of some thousand digits only
        raise ConfigError(f"{_shortened(text)}: {OUT_OF_RANGE}") from error
    if not _in_range(override.value()):
        raise ConfigError(f"{_shortened(text)}: {OUT_OF_RANGE}")
    if override.is_delete():
        raise ConfigError(f"{text!r}: keys cannot be deleted; set another value instead")
    if override.is_interval_sweep():
        raise ConfigError(f"{text!r}: interval() has no end of values to sweep; use range() or choice()")
    return override


def _levels(text: str) -> int:
    """How deep the brackets of a text go; those in quotes count too."""
    return max(accumulate((c in "[{(") - (c in "]})") for c in text), default=0)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")


def _in_range(value: Any) -> bool:
    """Whether a value holds no whole number beyond what tables can hold."""
    match value:
        case int():
            return abs(value) <= LARGEST
        case ChoiceSweep():
            parts = value.list
        case RangeSweep():
            parts = [value.start, value.stop, value.step]
        case dict():
            parts = list(value.values())
        case _:
            parts = value if isinstance(value, list) else []
    return all(map(_in_range, parts))


def _check_key(override: Override, schemas: Mapping[str, Schema], files: _Files) -> None:
    top = override.key_or_group.split(".")[0]
    _check_keys([override.key_or_group], schemas, "experiment")
    if override.package is not None:
        raise ConfigError(f"{override.input_line!r}: a package (@{override.package}) cannot be chosen; leave it out")
    if top == "experiment" and override.is_sweep_override():
        raise ConfigError(f"{override.input_line!r}: one experiment at a time")


def _check_keys(keys: Iterable[str], schemas: Mapping[str, Schema], *more: str) -> None:
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
    having = {
        group
        for group, kinds in {**classes, "output": [OutputSpec]}.items()
        for kind in kinds
        if name in {f.name for f in dataclasses.fields(kind)}
    }
    return [f"{group}.{name}" for group in sorted(having)]


def _most_combinations(base: DictConfig, parsed: list[Override]) -> int:
    """How large a grid may be: it counts before there are any points."""
    key = "most_combinations"
    given = next((o for o in parsed if o.key_or_group == key), None)
    most = given.value() if given else base.get(key, Settings.most_combinations)
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        said = given.input_line if given else f"{key}={most}"
        raise ConfigError(f"{said} is not a limit of the grid; expected one whole number, 1 or more")
    return most


def _check_count(axes: Mapping[str, list[Any]], most: int) -> None:
    if (count := prod(map(len, axes.values()))) > most:
        sizes = " x ".join(f"{len(values)} of {axis}" for axis, values in axes.items())
        raise ConfigError(f"the grid has {count} combinations ({sizes}), {_too_many(most)}")


def _too_many(most: int) -> str:
    return f"more than most_combinations={most}; leave some out, or raise most_combinations"


def _axes(
    base: DictConfig, parsed: list[Override], files: _Files, experiment: str | None, most: int
) -> dict[str, list[Any]]:
    """Axis -> its values: the grid of the study or experiment, with what the command line says instead."""
    grid = base.get("grid") or {}
    if experiment and "grid" in (content := OmegaConf.load(files.folder / "experiment" / f"{experiment}.yaml")):
        grid = content.grid or {}
    if not isinstance(grid, Mapping):
        raise ConfigError(f"grid={grid!r}: expected axes, as key: sweep string")
    _refuse_resolvers(OmegaConf.to_container(OmegaConf.create(dict(grid))), "grid")
    grid = OmegaConf.to_container(OmegaConf.create(dict(grid)), resolve=True)
    assert isinstance(grid, dict)
    said = {o.key_or_group for o in parsed}
    said |= {key.split(".")[0] for key in said}
    axes = {}
    for key, values in {str(key): values for key, values in grid.items()}.items():
        if not any(key == s or key.startswith(f"{s}.") for s in said):
            axes[key] = _at_most(most, _parse(f"{key}={_sweep_string(values)}"), files)
    for override in parsed:
        if override.is_sweep_override():
            axes[override.key_or_group] = _at_most(most, override, files)
    return axes


def _at_most(most: int, override: Override, files: _Files) -> list[Any]:
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


def _values(override: Override, files: _Files) -> Iterator[Any]:
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


class _Parameters:
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


class _Resolver:
    """Builds points; every distinct part is composed and checked once."""

    def __init__(self, files: _Files, base: DictConfig, schemas: Mapping[str, Schema], chosen: list[str]) -> None:
        self._files, self._base, self._schemas, self._chosen = files, base, schemas, chosen
        self._nodes: dict[tuple[str, str], Any] = {}
        self._typed: dict[tuple[str, str], Any] = {}
        self._built: dict[tuple[str, str], Any] = {}

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
        contents = {name: (name, repr(said)) for name, said in below.items()}
        if any(content not in self._built for content in contents.values()):
            tree = self._tree(values, pairs)
            for name, content in contents.items():
                if content not in self._built:
                    self._built[content] = self._build(name, tree)
        objects = {name: self._built[content] for name, content in contents.items()}
        said = [o.input_line or "" for o in given]
        texts = (*said, *(f"{axis}={override_text(v)}" for axis, v in values.items()))
        return Point(objects[""], {name: objects[name] for name in self._schemas}, texts)

    def _tree(self, values: dict[str, Any], pairs: list[tuple[str, Any]]) -> DictConfig:
        parts: dict[str, Any] = {
            str(key): OmegaConf.create({"v": self._base[key]}).v for key in self._base if key != "grid"
        }
        for key, value in values.items():
            if key in self._files.groups:
                parts[key] = self._choice(key, str(value))
        tree = OmegaConf.create(parts)
        for key, value in pairs:
            if key not in self._files.groups:
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
            self._nodes[group, choice] = self._files.compose([*self._chosen, f"{group}={choice}"])[group]
        return self._nodes[group, choice]

    def _object(self, key: str, node: Any, schema: Schema) -> Any:
        content = key, json.dumps(OmegaConf.to_container(node, resolve=True), sort_keys=True, default=str)
        if content not in self._typed:
            self._typed[content] = typed(key, node, schema)
        return self._typed[content]


def override_text(value: Any) -> str:
    """A value as an override says it, quoted where it would not mean itself."""
    if isinstance(value, list):
        return f"[{','.join(map(override_text, value))}]"
    if isinstance(value, str):
        return value if _means_itself(value) else str(QuotedString(value, Quote.single).with_quotes())
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _means_itself(text: str) -> bool:
    try:
        return bool(_parse(f"key=[{text}]").value() == [text])
    except ConfigError:
        return False
