"""Affine alignment: a target's last state as an affine function of its draft model's, `y ~ W x + b`.

Least squares with a ridge, from sums that are added up as texts go by:

    mu_x, mu_y: means;  S_xx = mean (x - mu_x)(x - mu_x)^T;  S_yx = mean (y - mu_y)(x - mu_x)^T
    W = S_yx (S_xx + ridge * tr(S_xx) / d_d * I)^-1;  b = mu_y - W mu_x

One eigendecomposition of S_xx serves every ridge. Letters in shapes: n positions, d_d and d_t the widths of the draft
model's and the target's states, R ridges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch

from specdraft.errors import ConfigError
from specdraft.models.sizes import FLOAT32_BYTES

RIDGES = (0.0, *(10.0**power for power in range(-8, 3)))  # to choose from, in parts of tr(S_xx) / d_d
SMALLEST = 1e-12  # an eigenvalue of this part of the largest is none: float64 sums know no better


@dataclass(frozen=True)
class StateSums:
    """Sums over positions, in float64; those of other positions are added with `+`, and taken away with `-`.

    Attributes:
        count: `[]` n.
        x, y: `[d_d]`, `[d_t]`.
        xx: `[d_d, d_d]` of x x^T; yx: `[d_t, d_d]` of y x^T.
        yy: `[d_t]` of the squares of y.
    """

    count: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    xx: torch.Tensor
    yx: torch.Tensor
    yy: torch.Tensor

    @classmethod
    def of(cls, draft_states: torch.Tensor, target_states: torch.Tensor) -> StateSums:
        """Of states `[n, d_d]` and `[n, d_t]` of the same positions."""
        x, y = (states.detach().cpu().double() for states in (draft_states, target_states))
        return cls(torch.tensor(float(len(x)), dtype=x.dtype), x.sum(0), y.sum(0), x.T @ x, y.T @ x, (y * y).sum(0))

    def __add__(self, other: StateSums) -> StateSums:
        return StateSums(*(mine + theirs for mine, theirs in zip(_fields(self), _fields(other), strict=True)))

    def __sub__(self, other: StateSums) -> StateSums:
        return StateSums(*(mine - theirs for mine, theirs in zip(_fields(self), _fields(other), strict=True)))

    @property
    def positions(self) -> int:
        """How many."""
        return int(self.count)

    def centred(self) -> CentredSums:
        """Means over the positions, and what is about the means."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        return CentredSums(
            mean_x,
            mean_y,
            self.xx / self.count - torch.outer(mean_x, mean_x),
            self.yx / self.count - torch.outer(mean_y, mean_x),
            self.yy / self.count - mean_y**2,
        )


def _fields(sums: StateSums) -> tuple[torch.Tensor, ...]:
    return (sums.count, sums.x, sums.y, sums.xx, sums.yx, sums.yy)


@dataclass(frozen=True)
class CentredSums:
    """Means of states, and of products of what is about the means; shapes as in `StateSums`."""

    mean_x: torch.Tensor
    mean_y: torch.Tensor
    xx: torch.Tensor
    yx: torch.Tensor
    yy: torch.Tensor


@dataclass(frozen=True)
class Affine:
    """`W` `[d_t, d_d]` and `b` `[d_t]`, float64."""

    weight: torch.Tensor
    bias: torch.Tensor

    @property
    def held_bytes(self) -> int:
        """As it is used: `d_t d_d + d_t` float32."""
        return (self.weight.numel() + self.bias.numel()) * FLOAT32_BYTES

    def squared_errors(self, sums: StateSums) -> torch.Tensor:
        """`[d_t]` the mean of `(y - W x - b)^2` over the positions of some sums, in closed form."""
        about, weight = sums.centred(), self.weight
        missed = about.mean_y - weight @ about.mean_x - self.bias
        varying = about.yy - 2 * (weight * about.yx).sum(1) + ((weight @ about.xx) * weight).sum(1)
        return varying + missed**2

    def r2(self, sums: StateSums) -> float:
        """The share of the target states' variance that is explained."""
        return float(1 - self.squared_errors(sums).sum() / sums.centred().yy.sum())

    def r2_by_dimension(self, sums: StateSums) -> torch.Tensor:
        """`[d_t]`; NaN of a dimension that does not vary."""
        variance = sums.centred().yy
        return torch.where(variance > 0, 1 - self.squared_errors(sums) / variance, torch.nan)


class RidgeFits:
    """The fits of some sums for every ridge.

    Attributes:
        about: the sums, centred.
        values: `[d_d]` eigenvalues of S_xx, ascending.
        scale: what a ridge is a part of: tr(S_xx) / d_d.
    """

    def __init__(self, sums: StateSums) -> None:
        self._count, self.about = sums.positions, sums.centred()
        self.values, self._vectors = torch.linalg.eigh(self.about.xx)
        self.scale = float(self.values.sum()) / len(self.values)
        self._rotated = self.about.yx @ self._vectors

    @property
    def spanned(self) -> int:
        """How many dimensions the draft model's states span."""
        return int((self.values > SMALLEST * self.values[-1]).sum())

    def condition(self, ridge: float) -> float:
        """The condition number of what is inverted; infinite of what cannot be."""
        least = float(self.values[0].clamp(min=0) + ridge * self.scale)
        singular = ridge == 0 and self.spanned < len(self.values)
        return float("inf") if singular else float(self.values[-1] + ridge * self.scale) / least

    def fit(self, ridge: float) -> Affine:
        """The least-squares map with a ridge.

        Raises:
            ConfigError: the ridge is 0 and the states do not span all dimensions.
        """
        if ridge == 0 and self.spanned < len(self.values):
            raise ConfigError(
                f"fit.ridge=0: the {self._count} draft states span only {self.spanned} of their {len(self.values)} "
                "dimensions, so no map is the best one; expected a ridge above 0, or more text"
            )
        shrunk = self._rotated / (self.values.clamp(min=0) + ridge * self.scale)
        weight = shrunk @ self._vectors.T
        return Affine(weight, self.about.mean_y - weight @ self.about.mean_x)


@dataclass(frozen=True)
class ChosenRidge:
    """What cross-validation says.

    Attributes:
        ridge: the one with the smallest error.
        errors: ridge -> the mean squared error, summed over dimensions, on folds that the fit did not see.
    """

    ridge: float
    errors: dict[float, float]


def choose_ridge(folds: Sequence[StateSums], ridges: Sequence[float] = RIDGES) -> ChosenRidge:
    """The ridge by cross-validation: each fold is predicted by the fit of the others, which is theirs by subtraction.

    Args:
        folds: the sums of each fold; folds share no prompt.
        ridges: to choose from; 0 is passed over where a fold leaves it without a fit.
    """
    total = reduce(add, folds)
    fits = [RidgeFits(total - fold) for fold in folds]
    whole = all(fit.spanned == len(fit.values) for fit in fits)
    errors = {
        ridge: sum(
            float(fit.fit(ridge).squared_errors(fold).sum()) * fold.positions
            for fit, fold in zip(fits, folds, strict=True)
        )
        / total.positions
        for ridge in ridges
        if ridge > 0 or whole
    }
    return ChosenRidge(min(errors, key=errors.__getitem__), errors)


def reduced_rank(fitted: Affine, about: CentredSums, ridge: float, rank: int, output: torch.Tensor) -> Affine:
    """The map of so low a rank that is nearest to a ridge fit, as the target's output layer sees it.

    Reduced-rank regression (Izenman 1975) in the metric M = U^T U of the output layer U: the truncated singular value
    decomposition of `M^1/2 W (S_xx + ridge)^1/2`. Without a limit on the rank the metric changes nothing.

    Args:
        fitted: the ridge fit.
        about: what it was fitted to.
        ridge: in the units of `about.xx`, not in parts of its trace.
        rank: singular values to keep.
        output: `[rows, d_t]` U.
    """
    rows = output.detach().cpu().double()
    metric = Root.of(rows.T @ rows)
    inputs = Root.of(about.xx + ridge * torch.eye(len(about.xx), dtype=about.xx.dtype))
    left, _, _ = torch.linalg.svd(metric.root @ fitted.weight @ inputs.root, full_matrices=False)
    kept = left[:, :rank]
    weight = metric.inverse @ (kept @ (kept.T @ (metric.root @ fitted.weight)))
    return Affine(weight, about.mean_y - weight @ about.mean_x)


@dataclass(frozen=True)
class Root:
    """The symmetric square root of a positive matrix, and its (pseudo-)inverse."""

    root: torch.Tensor
    inverse: torch.Tensor

    @classmethod
    def of(cls, matrix: torch.Tensor) -> Root:
        """By eigendecomposition; directions without a length have none in the inverse."""
        values, vectors = torch.linalg.eigh(matrix)
        there = values > SMALLEST * values[-1]
        lengths = values.clamp(min=0).sqrt()
        inverse = torch.where(there, 1 / lengths, 0)
        return cls((vectors * lengths) @ vectors.T, (vectors * inverse) @ vectors.T)
