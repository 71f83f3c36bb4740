"""From the host to a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def to_device(values: Any, device: torch.device) -> torch.Tensor:
    """Numbers on a device, without waiting for the work that is queued there."""
    import torch

    return torch.as_tensor(values).to(device, non_blocking=True)
