"""RMS norms (Zhang and Sennrich 2019) in one call: what models write as six is a good part of a small forward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

PROBED = 4  # states
TOLERANCE = 1e-5  # of the largest number
EPS_NAMES = ("variance_epsilon", "eps")


class FusedNorm(torch.nn.Module):
    """`[..., width]` -> the same, divided by its root mean square, times the weight.

    Args:
        weight: `[width]`.
        eps: is added to the mean square.
    """

    def __init__(self, weight: torch.nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps
        self._shape = tuple(weight.shape)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:  # as models call their norms
        """See the class."""
        return F.rms_norm(hidden_states, self._shape, self.weight, self.eps)


@torch.inference_mode()
def fuse_norms(model: Any) -> Any:
    """A model of one's own with such norms in the place of those that give the same, in float32, but for rounding."""
    for name, norm in list(model.named_modules()):
        fused = _fused(norm) if type(norm).__name__.endswith("RMSNorm") else None
        if fused is not None and _alike(norm, fused):
            model.set_submodule(name, fused.train(norm.training))
    return model


def _fused(norm: torch.nn.Module) -> FusedNorm | None:
    """What may do the same; None: it is no such norm."""
    weight = getattr(norm, "weight", None)
    eps = next((getattr(norm, name) for name in EPS_NAMES if isinstance(getattr(norm, name, None), float)), None)
    if not isinstance(weight, torch.nn.Parameter) or eps is None or len(list(norm.parameters())) > 1:
        return None
    if weight.dtype != torch.float32 or weight.dim() != 1:
        return None
    return FusedNorm(weight, eps)


def _alike(norm: torch.nn.Module, fused: FusedNorm) -> bool:
    """Whether both say the same of usual states, and of very small ones, where `eps` decides."""
    some = torch.linspace(-2.0, 3.0, PROBED * fused.weight.numel(), device=fused.weight.device).view(PROBED, -1)
    some = torch.cat([some, some * fused.eps])
    own = norm(some)
    return bool((fused(some) - own).abs().max() <= TOLERANCE * own.abs().max())
