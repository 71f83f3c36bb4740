"""Masks of several contestants."""

from __future__ import annotations

import torch


def additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where something is seen and the type's least number elsewhere, of the same shape."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
