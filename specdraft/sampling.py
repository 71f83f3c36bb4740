"""From logits to the one distribution that is sampled from (Leviathan et al. 2023, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass
class Sampling:
    """How the next token is chosen; `temperature: 0` is greedy decoding.

    Only greedy decoding is there so far; the keys are checked so that a study says what it means.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range, or not supported yet."""
        if self.temperature < 0:
            raise ConfigError(f"sampling.temperature={self.temperature} is out of range; expected 0 or more")
        if self.top_k < 0:
            raise ConfigError(f"sampling.top_k={self.top_k} is out of range; expected 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"sampling.top_p={self.top_p} is out of range; expected more than 0 and at most 1 (off)")
        if self.temperature > 0:
            raise ConfigError(f"sampling.temperature={self.temperature}: only greedy decoding (0) is supported so far")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def standardise(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution that `sampling` means: `[..., vocab]` logits -> `[..., vocab]` probabilities.

    Greedy decoding is the distribution with all its mass on the most probable token (the lowest id
    among equals).
    """
    import torch

    if not sampling.greedy:
        raise ConfigError("only greedy decoding is supported so far")
    return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
