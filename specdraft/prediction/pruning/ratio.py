"""A fixed share of every tree is left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specdraft.prediction.pruning.base import Drafted, ScoredPolicy, StepCosts


@dataclass
class Ratio(ScoredPolicy):
    """The likeliest nodes of each tree; of n nodes `pruning_ratio * n` are left out, rounded down."""

    kind: str = "ratio"
    pruning_ratio: float = 0.25

    def keep(self, drafted: Drafted, costs: StepCosts | None = None) -> np.ndarray:
        """See `PruningPolicy.keep`."""
        nodes = drafted.there.sum(1)
        pruned = np.floor(self.pruning_ratio * nodes + 1e-9).astype(np.int64)  # 0.2 * 5 is one node
        return drafted.best(nodes - pruned)

    def check(self) -> None:
        """See `PruningPolicy.check`."""
        super().check()
        self.check_share("pruning_ratio")
