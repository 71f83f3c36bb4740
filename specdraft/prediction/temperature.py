"""One temperature for a drafter's probabilities, fitted by log loss: Guo et al. 2017, arXiv 1706.04599, section 4.2.

What a drafter says is a distribution, and what happens is the target's token. Greedy texts follow the drafter's best
token more often than the drafter itself says, so there a temperature below 1 tells better what will be accepted. It
changes no rank: only how likely whole branches are, against one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

STEP, COUNT = 0.25, 40
INVERSES = STEP * np.arange(1, COUNT + 1)  # of the temperatures that losses are kept for: 4 down to 0.1
PLAIN = int(np.flatnonzero(INVERSES == 1.0)[0])
FINE = 1001  # points between the neighbours of the grid's best one
DIGITS = 4  # of a fitted temperature: trees are recorded under it, and a digit more tells none apart
ENTRIES = 2**20  # probabilities that are worked on at a time


class Losses(NamedTuple):
    """What each temperature of the grid would have cost on some tokens.

    Attributes:
        nats: `[G]` float64 sums of -log softmax(logits / T)[token].
        tokens: `[1]` over how many tokens.
    """

    nats: np.ndarray
    tokens: np.ndarray


NO_LOSSES = Losses(np.zeros(COUNT), np.array([0]))


def losses(logits: torch.Tensor, tokens: torch.Tensor) -> Losses:
    """Of a drafter on a text of the target.

    Args:
        logits: `[m, vocab]` before each token.
        tokens: `[m]` the text; a token that the drafter does not have is left out.
    """
    chosen = logits.gather(-1, tokens[:, None])
    there = (chosen > -inf).squeeze(-1)
    logits, chosen = logits[there], chosen[there]
    summed = logits.new_zeros(COUNT).double()
    at_once = max(1, ENTRIES // logits.shape[-1])
    for first in range(0, len(logits), at_once):
        some, of_token = logits[first : first + at_once], chosen[first : first + at_once]
        best = some.max(-1, keepdim=True).values
        step = ((some - best) * STEP).exp_()  # its powers are what all the grid needs: one exponential, not one each
        power, behind = step.clone(), (best - of_token).double().squeeze(-1)
        for place in range(COUNT):
            summed[place] += (power.sum(-1).double().log() + INVERSES[place] * behind).sum()
            power *= step
    return Losses(np.asarray(summed.cpu().numpy()), np.array([len(chosen)]))


class Temperature(NamedTuple):
    """A fitted temperature.

    Attributes:
        value: what logits are divided by.
        loss, plain_loss: nats a token at it, and at temperature 1, on what it was fitted to.
        tokens: how many it was fitted to.
    """

    value: float
    loss: float
    plain_loss: float
    tokens: int


def fit_temperature(on: Iterable[Losses]) -> Temperature:
    """The temperature with the least log loss.

    The loss is convex in the inverse temperature (a log-sum-exp of linear functions, less a linear one), so the
    neighbours of the grid's best point enclose the best one of all; a polynomial through five points places it.

    Args:
        on: texts; without a token in them it is 1.
    """
    nats, counts = (np.sum(list(parts), axis=0) for parts in zip(*on, strict=True))
    tokens = int(counts[0])
    if not tokens:
        return Temperature(1.0, 0.0, 0.0, 0)
    total = nats / tokens
    best = int(total.argmin())
    near = slice(max(0, min(best - 2, COUNT - 5)), max(0, min(best - 2, COUNT - 5)) + 5)
    curve = np.polynomial.Polynomial.fit(INVERSES[near], total[near], 4)
    between = np.linspace(INVERSES[max(best - 1, 0)], INVERSES[min(best + 1, COUNT - 1)], FINE)
    inverse = float(between[curve(between).argmin()])
    return Temperature(float(f"{1 / inverse:.{DIGITS}g}"), float(curve(inverse)), float(total[PLAIN]), tokens)
