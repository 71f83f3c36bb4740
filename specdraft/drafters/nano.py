"""A drafter that costs next to nothing: a model of the last few tokens (see `models/window_model.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from specdraft.config import read_json
from specdraft.drafters.base import DrafterSpec
from specdraft.drafters.draft_model import Model
from specdraft.errors import ConfigError
from specdraft.models.files import ModelFiles, has_weights, reading
from specdraft.models.head_files import HeadFiles
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.models.weights import check_complete


class NanoFiles(HeadFiles):
    """The folder of such a model, whose texts are its target's."""

    @property
    def model_class(self) -> Any:
        """See `ModelFiles.model_class`."""
        from specdraft.models.window_model import WindowModel

        return WindowModel

    @cached_property
    def config(self) -> Any:
        """See `ModelFiles.config`."""
        from specdraft.models.window_model import WindowConfig

        with reading(self.spec.path, "no usable config.json"):
            return WindowConfig.from_pretrained(self.folder)

    @cached_property
    def known_ids(self) -> int:
        """See `ModelFiles.known_ids`."""
        return min(int(self.config.vocab_size), self.target.known_ids)

    def check_supported(self) -> None:
        """See `ModelFiles.check_supported`: whether its tensors are those that config.json describes."""
        import torch

        if has_weights(self.folder):
            with reading(self.spec.path):
                with torch.device("meta"):
                    model = self.model_class(self.config)
                check_complete(self.shapes, model)


@dataclass
class Nano(Model):
    """A model of the last few tokens; `specdraft train nano` makes one (`drafter.path`, else the pair's `heads`)."""

    for_encoders: ClassVar[bool] = False
    kind: str = "nano"

    def weights(self, pair: PairSpec) -> ModelSpec:
        """See `DrafterSpec.weights`."""
        found = DrafterSpec.weights(self, pair)
        assert found is not None
        return found

    def complete(self, weights: ModelFiles, pair: PairSpec, target: ModelFiles) -> NanoFiles:
        """See `DrafterSpec.complete`: it must be this target's."""
        files, where = NanoFiles(weights.spec, weights.folder, target=target), f"drafter.path={weights.spec.path}"
        with reading(weights.spec.path, "no usable config.json"):
            told = read_json(weights.folder / "config.json", f"{where}: config.json")
        if not isinstance(told, dict) or told.get("model_type") != "specdraft_window":
            raise ConfigError(f"{where}: config.json describes no model of the last few tokens (specdraft train nano)")
        if files.config.vocab_size < target.known_ids:
            raise ConfigError(
                f"{where}: it knows {files.config.vocab_size} ids, and the target {target.known_ids}: it is another's"
            )
        return files
