"""Every chain has the same length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specdraft.prediction.length.base import LengthPolicy, Lengths


class Always(Lengths):
    """The same in every step."""

    def __init__(self, length: int) -> None:
        self._length = length

    def next(self) -> int:
        """See `Lengths.next`."""
        return self._length


@dataclass
class Constant(LengthPolicy):
    """`k` tokens; left out: as many as the budget.

    Attributes:
        k: the length of every chain.
    """

    kind: str = "constant"
    k: int | None = None

    @property
    def usual(self) -> bool:
        """See `LengthPolicy.usual`."""
        return self.k is None

    def fixed(self, budget: int, batch: int) -> int:
        """See `LengthPolicy.fixed`."""
        return budget if self.k is None else self.k

    def begin(self, budget: int, step_s: np.ndarray | None = None) -> Lengths:
        """See `LengthPolicy.begin`."""
        return Always(self.fixed(budget, 1))

    def misfit(self, budget: int, batch: int) -> str | None:
        """See `LengthPolicy.misfit`."""
        if self.k is None or self.k <= budget:
            return None
        return f"length.k={self.k} is more than budget={budget}, the most tokens of a chain"

    def check(self) -> None:
        """See `LengthPolicy.check`."""
        if self.k is not None and self.k < 1:
            raise self.refuse("k", "1 or more")
