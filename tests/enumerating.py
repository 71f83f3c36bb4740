"""A source of randomness that goes through every outcome, each with its exact probability."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

Outcome = TypeVar("Outcome")


class EnumeratingSource:
    """Answers as `forced` says, then always with the first possible answer, and keeps what else was possible."""

    def __init__(self, forced: list[int]) -> None:
        self._forced = forced
        self.taken: list[int] = []
        self.open: list[list[int]] = []  # at each question the possible answers after the one taken
        self.probability = 1.0

    def _answer(self, probabilities: list[float]) -> int:
        possible = [i for i, p in enumerate(probabilities) if p > 0] or [0]
        asked = len(self.taken)
        answer = self._forced[asked] if asked < len(self._forced) else possible[0]
        self.taken.append(answer)
        self.open.append([i for i in possible if i > answer])
        self.probability *= probabilities[answer] if sum(probabilities) else 1.0
        return answer

    def choose(self, weights: torch.Tensor) -> torch.Tensor:
        rows = (weights.double() / weights.double().sum(-1, keepdim=True).clamp(min=1e-300)).tolist()
        return torch.tensor([self._answer(row) for row in rows], device=weights.device)

    def flip(self, probability: float) -> bool:
        return self._answer([1 - probability, probability]) == 1


def outcomes(
    experiment: Callable[[EnumeratingSource], Outcome], kind: type[EnumeratingSource] = EnumeratingSource
) -> Iterator[tuple[Outcome, float]]:
    """Every outcome of an experiment with its probability, depth first: one run for each path of answers."""
    forced: list[int] | None = []
    while forced is not None:
        source = kind(forced)
        outcome = experiment(source)
        yield outcome, source.probability
        last = next((i for i in reversed(range(len(source.open))) if source.open[i]), None)
        forced = None if last is None else [*source.taken[:last], source.open[last][0]]
