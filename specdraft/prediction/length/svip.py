"""SVIP: drafting ends where the drafter's entropy says that what follows is likely to be rejected."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from specdraft.prediction.length.base import LengthPolicy, Lengths, Said
from specdraft.prediction.length.constant import Always


class SelfVerified(Always):
    """Ends by entropy, up to a length."""

    def __init__(self, most: int, threshold: float, scale: float) -> None:
        super().__init__(most)
        self._threshold, self._scale = threshold, scale

    def ends(self, said: Said) -> np.ndarray:
        """See `Lengths.ends`."""
        ends: np.ndarray = np.sqrt(self._scale * said.entropy) > self._threshold
        return ends


@dataclass
class Svip(LengthPolicy):
    """Drafting ends after the first token whose distribution has `sqrt(scale * entropy) > threshold`: one minus that
    root approximates a lower bound of the chance of acceptance (Zhang et al. 2024, section 3; the constants are those
    of the authors' code, which sends the uncertain token too).

    Attributes:
        threshold, scale: see above; entropy is in nats, at temperature 1.
    """

    kind: str = "svip"
    threshold: float = 0.3
    scale: float = 0.15
    watches = True
    reads_entropy = True

    def begin(self, budget: int, step_s: np.ndarray | None = None) -> Lengths:
        """See `LengthPolicy.begin`."""
        return SelfVerified(budget, self.threshold, self.scale)

    def check(self) -> None:
        """See `LengthPolicy.check`."""
        for name in ("threshold", "scale"):
            if not 0 <= getattr(self, name) < inf:
                raise self.refuse(name, "0 or more")
