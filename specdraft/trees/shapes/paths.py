"""A tree that the user writes down as rank paths, or that a file holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from specdraft.config import read_json
from specdraft.errors import ConfigError, TreeError
from specdraft.trees.shapes.base import StaticShape
from specdraft.trees.topology import RankPath, Topology

NAME = re.compile(r"[^\W\d_][\w.+/-]*")
EXPECTED = "expected rank paths, as [[0],[1],[0,0]]"


@dataclass
class Paths(StaticShape):
    """Exactly the nodes listed, whatever the budget: `tree.paths=[[0],[1],[0,0]]`, or `tree.file=tree.json`.

    Attributes:
        name: what the `tree` column says; left out: `paths-` and a digest of the nodes.
        file: JSON: a list of rank paths, or an object that has one as `paths` (as `specdraft trees fit` writes it).
    """

    kind: str = "paths"
    sized: ClassVar[bool] = True
    paths: list[list[int]] = field(default_factory=list)
    file: str | None = None
    name: str | None = None

    def check(self) -> None:
        if self.name is not None and not NAME.fullmatch(self.name):
            raise ConfigError(f"tree.name={self.name!r}: expected letters, digits, and . _ + / - after a letter")
        if not self.listed:
            raise ConfigError("tree.paths is empty; expected rank paths, such as tree.paths=[[0],[1],[0,0]]")
        try:
            Topology.from_paths(self.listed)
        except TreeError as error:
            raise ConfigError(f"{self._source}: {error}") from error

    @cached_property
    def listed(self) -> list[list[int]]:
        """The rank paths by depth and rank, so that a tree is the same in whatever order it is written.

        Raises:
            ConfigError: the file does not hold any, or there are two lists.
        """
        if self.file is not None and self.paths:
            raise ConfigError("tree.paths and tree.file are both given; expected one of them")
        paths = self.paths if self.file is None else read_paths(Path(self.file))
        return sorted(paths, key=lambda path: (len(path), path))

    def layout(self) -> Iterator[RankPath]:
        return (tuple(path) for path in self.listed)

    def identity(self) -> dict[str, Any]:
        """The nodes, wherever they are written."""
        return {"kind": self.kind, "paths": self.listed}

    @property
    def label(self) -> str:
        """The name, or `paths-` and a digest of the nodes, so that two trees have two names."""
        if self.name is not None:
            return self.name
        nodes = sorted(tuple(path) for path in self.listed)
        return f"paths-{hashlib.sha256(str(nodes).encode()).hexdigest()[:6]}"

    @property
    def _source(self) -> str:
        return "tree.paths" if self.file is None else f"tree.file={self.file}"


def read_paths(file: Path) -> list[list[int]]:
    """The rank paths in a JSON file. Raises `ConfigError` where there are none."""
    content = read_json(file, f"tree.file={file}")
    paths = content.get("paths") if isinstance(content, dict) else content
    if not isinstance(paths, list) or not paths or not all(map(_is_path, paths)):
        raise ConfigError(f"tree.file={file}: holds no rank paths; {EXPECTED}, or an object that has them as 'paths'")
    return paths


def _is_path(path: object) -> bool:
    return isinstance(path, list) and all(type(rank) is int for rank in path)
