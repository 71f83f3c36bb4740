"""A small network over all features: torch learns it, numpy applies it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from scipy.special import expit

from specdraft.prediction.features import Features, columns
from specdraft.prediction.predictors import LARGEST, Conditional, Scaled, Watched

UNITS, BATCH, EPOCHS, PATIENCE, RATE = 32, 1024, 60, 5, 3e-3


@dataclass(frozen=True, eq=False)
class Mlp(Conditional):
    """One hidden layer of SiLU units, fitted by log loss until the prompts that are watched gain nothing more.

    Attributes:
        hidden, hidden_bias: `[F, units]`, `[units]`; `out`, `out_bias`: `[units]`, a number. Columns go in as they are.
    """

    hidden: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    hidden_bias: np.ndarray = field(default_factory=lambda: np.zeros(0))
    out: np.ndarray = field(default_factory=lambda: np.zeros(0))
    out_bias: float = 0.0
    kind: ClassVar[str] = "mlp"
    default_groups: ClassVar[tuple[str, ...]] = ("temperature", "place", "loop")  # others cost, and add next to nothing

    @classmethod
    def fit(cls, features: Features, accepted: np.ndarray, watched: Watched, groups: Sequence[str]) -> Self:
        table = Scaled.of(columns(features, groups))
        seen = (columns(watched.features, groups) - table.mean) / table.scale
        learnt = learn(table.values, accepted, seen.astype(np.float32), watched.accepted, watched.seed)
        hidden = (learnt[0] / table.scale[:, None]).astype(np.float32)
        bias = (learnt[1] - table.mean @ (learnt[0] / table.scale[:, None])).astype(np.float32)
        return cls(tuple(groups), hidden, bias, learnt[2], float(learnt[3]))

    def logits(self, features: Features) -> np.ndarray:
        inside = columns(features, self.groups) @ self.hidden + self.hidden_bias
        inside *= expit(inside)
        said: np.ndarray = np.minimum(np.maximum(inside @ self.out + np.float32(self.out_bias), -LARGEST), LARGEST)
        return said


def learn(
    table: np.ndarray, accepted: np.ndarray, seen: np.ndarray, seen_accepted: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Weights and biases of both layers after the best epoch.

    Args:
        table, accepted: `[R, F]`, `[R]` to learn from.
        seen, seen_accepted: likewise, of other prompts: when their loss has not fallen for a while, it is enough.
        seed: of the first weights and of the order of the rows.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, silu

    generator = torch.Generator().manual_seed(seed)
    x, y, watch_x, watch_y = (
        torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        for values in (table, accepted, seen, seen_accepted)
    )
    width = x.shape[1]
    weights = [
        torch.randn(width, UNITS, generator=generator) / max(width, 1) ** 0.5,
        torch.zeros(UNITS),
        torch.randn(UNITS, generator=generator) / UNITS**0.5,
        torch.zeros(()),
    ]
    for weight in weights:
        weight.requires_grad_()
    optimiser = torch.optim.Adam(weights, lr=RATE)

    def loss(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = silu(inputs @ weights[0] + weights[1]) @ weights[2] + weights[3]
        return binary_cross_entropy_with_logits(logits, labels)

    best, kept, since = np.inf, [weight.detach().clone() for weight in weights], 0
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for some in order.split(BATCH):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            loss(x[some], y[some]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            now = float(loss(watch_x, watch_y))
        if now < best - 1e-5:
            best, kept, since = now, [weight.detach().clone() for weight in weights], 0
        elif (since := since + 1) >= PATIENCE:
            break
    hidden, hidden_bias, out, out_bias = (weight.numpy() for weight in kept)
    return hidden, hidden_bias, out, float(out_bias)
