"""From logits to the one distribution that is sampled from (Leviathan et al. 2023, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdraft.errors import ConfigError

if TYPE_CHECKING:
    import torch

COLDEST = 1e-6  # logits divided by less than this may overflow


@dataclass
class Sampling:
    """How the next token is chosen; `temperature: 0` is greedy decoding, whatever the other keys say.

    Attributes:
        temperature: divides the logits.
        top_k: keep the k largest logits, and all that equal the k-th; 0 is off.
        top_p: then keep the smallest set of most probable tokens with at least this probability; 1 is off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        if not (self.temperature == 0 or COLDEST <= self.temperature < float("inf")):
            expected = f"0 (greedy), or a finite number of at least {COLDEST}"
            raise ConfigError(f"sampling.temperature={self.temperature} is out of range; expected {expected}")
        if self.top_k < 0:
            raise ConfigError(f"sampling.top_k={self.top_k} is out of range; expected 0 (off) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"sampling.top_p={self.top_p} is out of range; expected more than 0 and at most 1 (off)")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def standardise(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution that `sampling` means: `[..., vocab]` logits -> `[..., vocab]` probabilities, same dtype.

    Greedy decoding is the distribution with all its mass on the most probable token (the lowest id
    among equals). Otherwise temperature, top-k and top-p in this order, as the processors of `transformers`;
    where top-p cuts through equal logits, the lower ids go first (theirs depends on the device).
    """
    import torch

    if sampling.greedy:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    scores = logits / sampling.temperature
    if sampling.top_k:
        least = scores.topk(min(sampling.top_k, scores.shape[-1])).values[..., -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if sampling.top_p < 1:
        ascending, order = scores.sort(dim=-1, stable=True)
        dropped = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        dropped[..., -1] = False  # the most probable token stays
        scores = scores.masked_fill(dropped.scatter(-1, order, dropped), -torch.inf)
    return scores.softmax(-1)
