"""An affine head refined towards the target's distribution.

`KL(target || softmax(output(W x + b)))`, averaged over states, is convex in W and b where `output` is affine: the
target's output layer for an alignment (the "tuned lens" objective, Belrose et al. 2023), nothing at all for a free
head. So it has one smallest value, and a start and a rate decide only how soon one is near it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from specdraft.prediction.alignment import Affine, CentredSums, Root

Output = Callable[[torch.Tensor], torch.Tensor]  # `[m, d]` -> `[m, vocab]` logits
CHECKED = 4096  # states on which the divergence is told
FLAT = 1e-2  # a second half of the steps that changes it by less than this part of the divergence: converged


@dataclass(frozen=True)
class Refined:
    """What came of it.

    Attributes:
        affine: the map.
        steps: how many there were.
        kl_before, kl_halfway, kl_after: nats, on `CHECKED` of the states.
        gradient: the gradient's length there, as a part of its length at the start.
    """

    affine: Affine
    steps: int
    kl_before: float
    kl_halfway: float
    kl_after: float
    gradient: float

    @property
    def converged(self) -> bool:
        """The second half of the steps, whose rate begins anew, changed next to nothing."""
        return abs(self.kl_halfway - self.kl_after) < FLAT * self.kl_after


@dataclass(frozen=True)
class Training:
    """How a head is refined: Adam on random batches, in two halves in each of which its rate falls to 0 along a cosine.

    Attributes:
        steps, batch: how many, of how many states.
        rate: that each half begins with, in parts of the parameters' root mean square, for whitened states.
        seed: of the batches.
    """

    steps: int = 400
    batch: int = 1024
    rate: float = 0.1
    seed: int = 0


def refine(
    start: Affine,
    about: CentredSums,
    draft_states: torch.Tensor,
    target_states: torch.Tensor,
    output: Output,
    target: Output,
    training: Training,
) -> Refined:
    """Refine a map on cached states.

    Args:
        start: where to begin: the least-squares map, or the draft model's own head.
        about: sums of the draft states, which are whitened so that no direction is slow.
        draft_states: `[n, d_d]`; target_states: `[n, d_t]` of the same positions.
        output: makes logits of what the map gives.
        target: makes the target's logits of its states.
        training: how.
    """
    white = _Whitened.of(about)
    rows = torch.Generator().manual_seed(training.seed)
    checked = torch.randperm(len(draft_states), generator=rows)[:CHECKED]
    parameters = [value.requires_grad_() for value in white.enter(start)]

    def cross_entropy(some: torch.Tensor) -> torch.Tensor:
        """KL but for the target's own entropy, which no parameter changes."""
        weight, bias = parameters
        with torch.no_grad():
            wanted = torch.softmax(target(target_states[some]), -1)
        return F.cross_entropy(output(white(draft_states[some]) @ weight.T + bias), wanted)

    def divergence() -> float:
        with torch.no_grad():
            return float(cross_entropy(checked)) - entropy

    def slope() -> float:
        parts = torch.autograd.grad(cross_entropy(checked), parameters)
        return math.sqrt(sum(float(part.square().sum()) for part in parts))

    def descend(steps: int) -> None:
        rate = training.rate * float(parameters[0].detach().square().mean().sqrt())
        adam = torch.optim.Adam(parameters, lr=rate)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        for _ in range(steps):
            some = torch.randint(len(draft_states), (min(training.batch, len(draft_states)),), generator=rows)
            adam.zero_grad()
            cross_entropy(some).backward()  # type: ignore[no-untyped-call]
            adam.step()
            falling.step()

    entropy = _entropy(target(target_states[checked]))
    before, steep = divergence(), slope()
    descend(training.steps - training.steps // 2)
    halfway = divergence()
    descend(training.steps // 2)
    least = slope() / max(steep, 1e-30)
    return Refined(white.leave(parameters), training.steps, before, halfway, divergence(), least)


@torch.no_grad()
def _entropy(logits: torch.Tensor) -> float:
    """The mean entropy of rows, nats."""
    said = torch.log_softmax(logits, -1)
    return -float((said.exp() * said).sum(-1).mean())


@dataclass(frozen=True)
class _Whitened:
    """Draft states in coordinates in which they have mean 0 and covariance 1.

    Attributes:
        mean: `[d_d]`; roots: of the covariance `[d_d, d_d]`, float64.
    """

    mean: torch.Tensor
    roots: Root

    @classmethod
    def of(cls, about: CentredSums) -> _Whitened:
        return cls(about.mean_x, Root.of(about.xx))

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """`[m, d_d]` float32."""
        return (states.float() - self.mean.float()) @ self.roots.inverse.float()

    def enter(self, affine: Affine) -> list[torch.Tensor]:
        """Weight and bias for whitened states, float32."""
        return [(affine.weight @ self.roots.root).float(), (affine.bias + affine.weight @ self.mean).float()]

    def leave(self, parameters: list[torch.Tensor]) -> Affine:
        """The map for states as they are."""
        weight, bias = (value.detach().double() for value in parameters)
        weight = weight @ self.roots.inverse
        return Affine(weight, bias - weight @ self.mean)
