"""As many nodes as make the most tokens per second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from specdraft.prediction.pruning.base import Drafted, ScoredPolicy, StepCosts


@dataclass
class Adaptive(ScoredPolicy):
    """The n likeliest nodes, n so that expected tokens per second of the step are the most.

    A step that sends n nodes yields the target's own token and each node with its survival: `1 + sum of the n best`,
    in the time that drafting took, that verifying n nodes takes, and of the rest. Of equals the fewest.
    """

    kind: str = "adaptive"
    needs_costs: ClassVar[bool] = True

    def keep(self, drafted: Drafted, costs: StepCosts | None = None) -> np.ndarray:
        """See `PruningPolicy.keep`."""
        assert costs is not None, "see PruningPolicy.needs_costs"
        survival = np.where(drafted.there, np.exp(drafted.log_survival), 0.0)
        gained = np.cumsum(np.take_along_axis(survival, drafted.best_first(), axis=1), axis=1)
        tokens = 1 + np.concatenate([np.zeros((len(gained), 1)), gained], axis=1)  # [V, N + 1]
        rate = tokens / (costs.fixed_s[:, None] + costs.verify_s[: tokens.shape[1]])
        return drafted.best(rate.argmax(1))
