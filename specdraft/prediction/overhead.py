"""The memory of what stands beside two models: an alignment, a predictor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from specdraft.models.files import ModelFiles

MEGABYTE = 1e6


@dataclass(frozen=True)
class Overhead:
    """Memory beside both models.

    Attributes:
        megabytes: 10^6 bytes.
        percent: of the weights of both models.
    """

    megabytes: float
    percent: float

    def __str__(self) -> str:
        return f"{self.megabytes:.3g} MB, {self.percent:.2g} % of both models' weights"


def overhead(held_bytes: int, models: Iterable[ModelFiles]) -> Overhead:
    """Of so many bytes beside these models."""
    from specdraft.models.sizes import model_size  # torch

    weights_bytes = sum(model_size(files).weights_bytes for files in models)
    return Overhead(held_bytes / MEGABYTE, 100 * held_bytes / weights_bytes)
