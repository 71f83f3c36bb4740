"""`transformers`' heuristic schedule: two more after a chain that was accepted as a whole, else one less."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specdraft.prediction.length.base import LengthPolicy, Lengths, Said


class Heuristic(Lengths):
    """`num_assistant_tokens_schedule="heuristic_transient"` (`generation/candidate_generator.py`,
    `update_candidate_strategy`), held at the budget."""

    def __init__(self, first: int, budget: int) -> None:
        self._next, self._budget = min(first, budget), budget

    def next(self) -> int:
        """See `Lengths.next`."""
        return self._next

    def observe(self, accepted: int, said: Said) -> None:
        """See `Lengths.observe`."""
        longer = self._next + 2 if accepted == len(said.log_prob) else self._next - 1
        self._next = min(max(1, longer), self._budget)


@dataclass
class HfHeuristic(LengthPolicy):
    """The length starts at `initial` in every text; after a chain that was accepted as a whole it grows by 2, after any
    other it falls by 1, to 1 at least.

    Attributes:
        initial: the first length (`num_assistant_tokens`).
    """

    kind: str = "hf_heuristic"
    initial: int = 5

    @property
    def adapts(self) -> bool:
        """See `LengthPolicy.adapts`."""
        return True

    def begin(self, budget: int, step_s: np.ndarray | None = None) -> Lengths:
        """See `LengthPolicy.begin`."""
        return Heuristic(self.initial, budget)

    def check(self) -> None:
        """See `LengthPolicy.check`."""
        if self.initial < 1:
            raise self.refuse("initial", "1 or more")
