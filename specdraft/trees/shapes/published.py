"""Trees that public projects ship, as lists of rank paths (bundled/published_trees.json names each source)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, ClassVar

from specdraft.errors import ConfigError, did_you_mean
from specdraft.trees.shapes.base import StaticShape
from specdraft.trees.topology import RankPath


def published_trees() -> dict[str, dict[str, Any]]:
    """Name -> `paths`, `nodes`, `depth`, `family` and `source` of every tree."""
    text = files("specdraft").joinpath("bundled/published_trees.json").read_text(encoding="utf-8")
    trees: dict[str, dict[str, Any]] = json.loads(text)["trees"]
    return trees


@dataclass
class Published(StaticShape):
    """The published tree called `name`; it has a size of its own."""

    kind: str = "published"
    sized: ClassVar[bool] = True
    name: str = "medusa/mc_sim_7b_63"

    def check(self) -> None:
        if self.name not in (trees := published_trees()):
            raise ConfigError(f"tree.name={self.name!r} is not a published tree{did_you_mean(self.name, trees)}")

    def layout(self) -> Iterator[RankPath]:
        return (tuple(path) for path in published_trees()[self.name]["paths"])

    @property
    def label(self) -> str:
        """`medusa` and `eagle` for the two best-known trees, else the tree's own name."""
        well_known = {"medusa/mc_sim_7b_63": "medusa", "eagle/mc_sim_7b_63": "eagle"}
        return well_known.get(self.name, self.name)
