"""What drafters with heads on the target's states have alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specdraft.config import read_json
from specdraft.drafters.base import DrafterSpec, DrafterTraits
from specdraft.errors import ConfigError
from specdraft.models.files import ModelFiles, has_weights
from specdraft.models.head_files import HeadFiles
from specdraft.models.placement import device_type_of, dtype_name
from specdraft.models.spec import PairSpec


@dataclass
class HeadSpec(DrafterSpec):
    """See `DrafterSpec`: its weights are heads, in a folder with a config.json, that fit one target."""

    kind: str = ""

    def check_fits(self, files: HeadFiles) -> None:
        """Raise `ConfigError` where the heads are not this target's, or less deep than is asked for."""
        raise NotImplementedError

    def complete(self, weights: ModelFiles, pair: PairSpec, target: ModelFiles) -> HeadFiles:
        """See `DrafterSpec.complete`: the heads, which must fit the target."""
        files = HeadFiles(weights.spec, weights.folder, target=target)
        if has_weights(files.folder):
            self.check_fits(files)
        return files

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any]:
        """See `DrafterSpec.facts`."""
        assert weights is not None
        held = {"dtype": dtype_name(target), "device": device_type_of(target)}
        return {"weights": weights.weights_hash, "vocab": target.vocab(), "drafter": self.parameters} | held

    def _at_least_one(self, name: str) -> None:
        """Raise `ConfigError` unless a parameter is 1 or more."""
        if (value := getattr(self, name)) < 1:
            raise ConfigError(f"drafter.{name}={value} is out of range; expected 1 or more")


@dataclass
class NumberedHeads(HeadSpec):
    """Heads on the target's last state, one for each distance from the root.

    Attributes:
        heads: how many of them, from the first one: the most levels of a tree.
    """

    heads: int = 4

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`; the state is the one that the output layer reads, after the final norm."""
        return DrafterTraits(deepest=self.heads, by_offset=True, hidden_layers=(-1,), needs_target=True)

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        self._at_least_one("heads")

    def _check_count(self, there: int, files: HeadFiles) -> None:
        """Raise `ConfigError` where there are fewer than are asked for."""
        if there < self.heads:
            raise ConfigError(f"drafter.heads={self.heads} is out of range; {files.spec.path} has {there}")


def where(files: HeadFiles) -> str:
    """Names the folder in messages."""
    return f"drafter.path={files.spec.path}"


def settings_of(files: HeadFiles) -> dict[str, Any]:
    """The folder's config.json. Raises `ConfigError` where it holds no settings."""
    config = read_json(files.folder / "config.json", f"{where(files)}: config.json")
    if not isinstance(config, dict):
        raise ConfigError(f"{where(files)}: config.json holds no settings")
    return config
