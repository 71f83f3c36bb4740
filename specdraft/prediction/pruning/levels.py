"""The likeliest nodes of every depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specdraft.errors import ConfigError
from specdraft.prediction.pruning.base import Drafted, ScoredPolicy, StepCosts


@dataclass
class Levels(ScoredPolicy):
    """From the root down, the `keep_per_level` likeliest nodes of each depth among those whose parent is kept."""

    kind: str = "levels"
    keep_per_level: int = 4

    def keep(self, drafted: Drafted, costs: StepCosts | None = None) -> np.ndarray:
        """See `PruningPolicy.keep`."""
        rows = np.arange(len(drafted.parent))[:, None]
        kept = np.zeros(drafted.parent.shape, dtype=bool)
        for depth in range(1, int(drafted.depth.max(initial=0)) + 1):
            above = (drafted.parent == 0) | kept[rows, drafted.parent - 1]
            level = (drafted.depth == depth) & above
            here = drafted._replace(depth=np.where(level, depth, 0))
            kept |= here.best(np.full(len(level), self.keep_per_level))
        return kept

    def check(self) -> None:
        """See `PruningPolicy.check`."""
        super().check()
        if self.keep_per_level < 1:
            raise ConfigError(f"pruning.keep_per_level={self.keep_per_level} is out of range; expected 1 or more")
