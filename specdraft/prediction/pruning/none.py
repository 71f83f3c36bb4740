"""Every drafted node is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from specdraft.prediction.pruning.base import Drafted, PruningPolicy, StepCosts


@dataclass
class NoPruning(PruningPolicy):
    """The whole tree."""

    kind: str = "none"
    prunes: ClassVar[bool] = False

    def keep(self, drafted: Drafted, costs: StepCosts | None = None) -> np.ndarray:
        """See `PruningPolicy.keep`."""
        return drafted.there
