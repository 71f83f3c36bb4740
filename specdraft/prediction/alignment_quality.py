"""How well an alignment does on states that it was not fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from specdraft.prediction.alignment import Affine, StateSums
from specdraft.prediction.alignment_refine import Output

QUANTILES = {"least": 0.0, "lower quartile": 0.25, "median": 0.5, "upper quartile": 0.75, "most": 1.0}
LOGITS = 2**24  # that are there at a time: positions x ids


@dataclass(frozen=True)
class HeadFigures:
    """What a head on the draft model's states says, beside the target.

    Attributes:
        agreement: the share of positions at which both find the same token most probable.
        kl: the mean of KL(target || head), nats.
    """

    agreement: float
    kl: float


@dataclass(frozen=True)
class Quality:
    """Figures of held-out positions.

    Attributes:
        positions: how many.
        r2: the share of the target states' variance that is explained; `r2_by_dimension`: quantiles over dimensions.
        cosine: the mean cosine of the mapped states and the target's.
        heads: name -> what it says.
    """

    positions: int
    r2: float
    r2_by_dimension: dict[str, float]
    cosine: float
    heads: dict[str, HeadFigures]


class HeldOut:
    """Adds up the figures of an alignment as held-out states go by.

    Args:
        affine: the map.
        heads: name -> logits `[m, vocab]` of draft states `[m, d_d]`.
        target: logits of target states `[m, d_t]`.
    """

    def __init__(self, affine: Affine, heads: Mapping[str, Output], target: Output) -> None:
        self._affine, self._heads, self._target = affine, heads, target
        self._sums: StateSums | None = None
        self._cosine = 0.0
        self._agreed, self._kl = dict.fromkeys(heads, 0.0), dict.fromkeys(heads, 0.0)

    @torch.inference_mode()
    def add(self, draft_states: torch.Tensor, target_states: torch.Tensor) -> None:
        """More positions: `[n, d_d]` and `[n, d_t]`."""
        sums = StateSums.of(draft_states, target_states)
        self._sums = sums if self._sums is None else self._sums + sums
        mapped = draft_states.cpu().double() @ self._affine.weight.T + self._affine.bias
        self._cosine += float(F.cosine_similarity(mapped, target_states.cpu().double()).sum())
        count = max(1, LOGITS // self._target(target_states[:1]).shape[-1])
        for x, y in zip(torch.split(draft_states, count), torch.split(target_states, count), strict=True):
            wanted = torch.log_softmax(self._target(y), -1)
            for name, head in self._heads.items():
                said = torch.log_softmax(head(x).to(wanted.device), -1)
                self._agreed[name] += float((said.argmax(-1) == wanted.argmax(-1)).sum())
                self._kl[name] += float(F.kl_div(said, wanted, reduction="sum", log_target=True))

    def figures(self) -> Quality:
        """Of all that was added."""
        assert self._sums is not None
        n, r2 = self._sums.positions, self._affine.r2_by_dimension(self._sums)
        return Quality(
            n,
            self._affine.r2(self._sums),
            {name: float(torch.nanquantile(r2, at)) for name, at in QUANTILES.items()},
            self._cosine / n,
            {name: HeadFigures(self._agreed[name] / n, self._kl[name] / n) for name in self._heads},
        )


def as_data(quality: Quality) -> dict[str, Any]:
    """For programs and for a file's metadata."""
    heads = {name: {"agreement": head.agreement, "kl": head.kl} for name, head in quality.heads.items()}
    return {
        "held_out_tokens": quality.positions,
        "r2": quality.r2,
        "r2_by_dimension": quality.r2_by_dimension,
        "cosine": quality.cosine,
        "heads": heads,
    }
