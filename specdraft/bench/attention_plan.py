"""What `specdraft bench attention` measures: from `configs/bench/attention.yaml` and overrides to checked cells."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import product
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from specdraft.attention.geometry import GEOMETRIES
from specdraft.config import load_group, override_groups, override_keys, override_text, own_group
from specdraft.config.overrides import parse
from specdraft.errors import ConfigError, did_you_mean
from specdraft.models.placement import resolve_device
from specdraft.models.spec import ModelSpec
from specdraft.trees import shapes
from specdraft.trees.shapes import StaticShape
from specdraft.trees.topology import Topology

if TYPE_CHECKING:
    import torch

    from specdraft.attention.contestants import Contestant

GROUP = "bench"
DTYPES = ("float32", "bfloat16", "float16")
MOST_NODES = 1024
MOST_CELLS = 5_000
LEAST = {"batch": 1, "context": 0, "nodes": 1, "max_rounds": 1}


@dataclass
class AttentionSpec:
    """The keys of `bench attention`, and what its file of `configs/bench` may say.

    Attributes:
        batch: texts that are decoded together.
        context: tokens before the root.
        nodes: draft nodes; a tree with a size of its own has that.
        tree: files of `configs/tree` that are fixed layouts.
        geometry: see `attention.geometry`.
        contestants: None: those that suit the device.
        dtype: `auto`: float32 on a CPU, bfloat16 on a GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        max_rounds: in a round every contestant of a cell has its turn.
        max_s: no round of a cell begins after so many seconds, from the fifth on.
        total_s: no cell begins after so many seconds.
        seed: of queries, keys and values.
    """

    batch: list[int] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    tree: list[str] = field(default_factory=list)
    geometry: list[str] = field(default_factory=list)
    contestants: list[str] | None = None
    dtype: str = "auto"
    device: str = "auto"
    max_rounds: int = 30
    max_s: float = 4.0
    total_s: float | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range and for names that are not known."""
        for key in AXES:
            if not getattr(self, key):
                raise ConfigError(f"{key} is empty; expected one value or more, such as {key}={EXAMPLES[key]}")
        for key, least in LEAST.items():
            for value in _listed(getattr(self, key)):
                if value < least:
                    raise ConfigError(f"{key}={value} is out of range; expected {least} or more")
        if (most := max(self.nodes)) > MOST_NODES:
            raise ConfigError(f"nodes={most} is out of range; expected at most {MOST_NODES}")
        for key in ("max_s", "total_s"):
            if (seconds := getattr(self, key)) is not None and not 0 < seconds < inf:
                raise ConfigError(f"{key}={seconds} is out of range; expected seconds, above 0")
        for name in self.geometry:
            if name not in GEOMETRIES:
                raise ConfigError(f"geometry={name}: there is no such geometry{did_you_mean(name, GEOMETRIES)}")
        if self.dtype not in ("auto", *DTYPES):
            raise ConfigError(f"dtype={self.dtype!r} is not known{did_you_mean(self.dtype, ('auto', *DTYPES))}")


AXES = ("batch", "context", "nodes", "tree", "geometry")
EXAMPLES = {"batch": "1,8", "context": "512,8192", "nodes": "8,64", "tree": "chain,wide", "geometry": "zoo"}
LISTS = (*AXES, "contestants")


class NamedTree(NamedTuple):
    """A tree and what tables call its shape."""

    shape: str
    tree: Topology

    @property
    def leaves(self) -> int:
        """Paths from the root."""
        return int((~self.tree.has_children).sum())


class Cell(NamedTuple):
    """One point of the grid."""

    geometry: str
    batch: int
    context: int
    named: NamedTree


@dataclass(frozen=True)
class AttentionPlan:
    """A checked benchmark."""

    spec: AttentionSpec
    cells: list[Cell]
    contestants: list[Contestant]
    device: torch.device
    dtype: torch.dtype


def plan_attention(overrides: list[str], config_dir: Path | None = None) -> AttentionPlan:
    """Find the trees, the contestants and the device.

    Raises:
        ConfigError: the file or an override cannot be meant.
    """
    spec, _ = own_group(GROUP, "attention", _below_the_group(overrides), AttentionSpec, config_dir)
    spec.check()
    trees = list(_trees(spec, config_dir))
    axes = spec.geometry, spec.batch, spec.context, trees
    if (count := prod(map(len, axes))) > MOST_CELLS:
        raise ConfigError(f"the grid has {count} cells, more than {MOST_CELLS}; leave some out")
    device = resolve_device(ModelSpec("", device=spec.device))
    cells = [Cell(*point) for point in product(*axes)]
    return AttentionPlan(spec, cells, _contestants(spec, device), device, _dtype(spec, device))


def _below_the_group(overrides: list[str]) -> list[str]:
    """`batch=1,8` as `bench.batch=[1,8]`."""
    known = [one.name for one in fields(AttentionSpec)]
    texts = []
    for text, key, group in zip(overrides, override_keys(overrides), override_groups(overrides), strict=True):
        if group == GROUP:
            texts.append(text)
        elif key in known:
            texts.append(f"{GROUP}.{key}={override_text(_value(key, text))}")
        else:
            raise ConfigError(f"{text}: {key} is not a key of bench attention{did_you_mean(key, known)}")
    return texts


def _value(key: str, text: str) -> Any:
    override = parse(text)
    if not override.is_sweep_override():
        value = override.value()
        return [value] if key in LISTS and value is not None and not isinstance(value, list) else value
    if key not in LISTS:
        raise ConfigError(f"{text}: one value at a time")
    if not (override.is_choice_sweep() or override.is_range_sweep()):
        raise ConfigError(
            f"{text}: expected values with commas between them, such as {key}={EXAMPLES.get(key, 'dense')}"
        )
    return list(override.sweep_iterator())


def _trees(spec: AttentionSpec, config_dir: Path | None) -> Any:
    """Each shape at each size; one that has its own once."""
    for name in spec.tree:
        shape = load_group("tree", name, shapes.registry(), config_dir)
        if not isinstance(shape, StaticShape):
            raise ConfigError(
                f"tree={name} differs from step to step or is fitted; expected a fixed one, such as chain or kary"
            )
        for nodes in spec.nodes[:1] if shape.sized else spec.nodes:
            yield NamedTree(shape.label, shape.at(nodes).topology)


def _contestants(spec: AttentionSpec, device: torch.device) -> list[Contestant]:
    from specdraft.attention.contestants import registry

    known = registry()
    if spec.contestants is None:
        return [one for one in known.values() if one.on_cpu or device.type != "cpu"]
    for name in spec.contestants:
        if name not in known:
            raise ConfigError(f"contestants={name}: there is no such contestant{did_you_mean(name, known)}")
    if not spec.contestants:
        raise ConfigError(f"contestants is empty; expected some of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(spec.contestants)]


def _dtype(spec: AttentionSpec, device: torch.device) -> torch.dtype:
    import torch

    name = spec.dtype if spec.dtype != "auto" else "float32" if device.type == "cpu" else "bfloat16"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
