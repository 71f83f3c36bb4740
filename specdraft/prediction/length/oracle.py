"""Exactly the tokens that will be accepted: what no policy knows, and the yardstick of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specdraft.prediction.length.base import LengthPolicy, Lengths
from specdraft.prediction.length.constant import Always


@dataclass
class Oracle(LengthPolicy):
    """In hindsight: each chain has as many tokens as are accepted of the longest one. Replayed only."""

    kind: str = "oracle"
    hindsight = True

    @property
    def may_be_empty(self) -> bool:
        """See `LengthPolicy.may_be_empty`."""
        return True

    def begin(self, budget: int, step_s: np.ndarray | None = None) -> Lengths:
        """What it would have at most; a recorded text says how many."""
        return Always(budget)
