"""Layers that heads on a target's states are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    """RMSNorm (Zhang and Sennrich 2019), in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self._eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        whole = F.rms_norm(states.float(), self.weight.shape, eps=self._eps)
        return self.weight * whole.to(states.dtype)


class Gated(nn.Module):
    """`down(SiLU(gate(x)) * up(x))`."""

    def __init__(self, width: int, inner: int, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(F.silu(self.gate_proj(states)) * self.up_proj(states))
        return out


def rotated(
    states: torch.Tensor, positions: torch.Tensor, frequencies: torch.Tensor, scale: float = 1.0
) -> torch.Tensor:
    """Rotary positions (Su et al. 2021), halves paired as in Llama: `[..., heads, c]` states at positions `[...]`.

    Args:
        states, positions: as above.
        frequencies: `[c / 2]`.
        scale: what cosines and sines are multiplied by.
    """
    angles = positions[..., None, None].float() * frequencies
    cos, sin = (scale * part for part in (angles.cos(), angles.sin()))
    first, second = states.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(states.dtype)
