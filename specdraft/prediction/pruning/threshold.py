"""Nodes that are likely enough to be accepted."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log

import numpy as np

from specdraft.prediction.pruning.base import Drafted, ScoredPolicy, StepCosts


@dataclass
class Threshold(ScoredPolicy):
    """The nodes whose survival is at least `min_acceptance_prob`."""

    kind: str = "threshold"
    min_acceptance_prob: float = 0.02

    def keep(self, drafted: Drafted, costs: StepCosts | None = None) -> np.ndarray:
        """See `PruningPolicy.keep`; survival falls down a path, so ancestors are kept."""
        least = log(self.min_acceptance_prob) if self.min_acceptance_prob > 0 else -inf
        kept: np.ndarray = drafted.there & (drafted.log_survival >= least)
        return kept

    def check(self) -> None:
        """See `PruningPolicy.check`."""
        super().check()
        self.check_share("min_acceptance_prob")
