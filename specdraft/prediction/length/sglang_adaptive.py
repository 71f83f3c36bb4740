"""SGLang's adaptive steps: a few lengths, moved between by a moving average of what was accepted."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

import numpy as np

from specdraft.prediction.length.base import LengthPolicy, Lengths, Said, check_share


class Steps(Lengths):
    """The state of one slot (SGLang 0.5.23, `speculative/adaptive_spec_params.py`)."""

    def __init__(self, how: SglangAdaptive) -> None:
        self._how, self._candidates = how, how.candidate_steps
        first = how.initial_steps in self._candidates
        self._place = self._candidates.index(how.initial_steps) if first else len(self._candidates) // 2
        self._mean, self._count = self.next() - 1.0, 0

    def next(self) -> int:
        """See `Lengths.next`."""
        return self._candidates[self._place]

    def observe(self, accepted: int, said: Said) -> None:
        """See `Lengths.observe`."""
        how = self._how
        if self.next() > 0:
            self._mean = (1 - how.ema_alpha) * self._mean + how.ema_alpha * accepted
        self._count += 1
        since = self._count - how.warmup
        if since > 0 and since % how.update_interval == 0:
            self._place = self._moved()

    def _moved(self) -> int:
        place, last, how = self._place, len(self._candidates) - 1, self._how
        if self.next() == 0:
            place = min(place + 1, last)
            self._mean = self._candidates[place] - 1.0 if self._mean < 0 else self._mean
            return place
        while place > 0 and self._mean <= self._least(place - 1) + how.down_hysteresis:
            place -= 1
        if place == self._place:
            while place < last and self._mean > self._candidates[place] - 0.5 + how.up_hysteresis:
                place += 1
        if how.ceiling_coeff > 0:
            ceiling = max(1, ceil(self._mean * how.ceiling_coeff))
            while place > 0 and self._candidates[place] > ceiling:
                place -= 1
        return place

    def _least(self, below: int) -> float:
        """The mean at which a candidate is left for the one below it, without hysteresis."""
        steps = self._candidates[below]
        return 0.5 if steps == 0 else steps - 0.5


@dataclass
class SglangAdaptive(LengthPolicy):
    """Of `candidate_steps` one, the next one up or down where an exponential mean of accepted tokens says so
    (`--speculative-adaptive`, the slot of batch size 1). Every text starts anew; a server goes on with the next one.

    Attributes:
        candidate_steps: lengths, ascending.
        initial_steps: the first one; where it is no candidate, the middle one.
        ema_alpha: weight of the last step.
        update_interval, warmup: steps between changes, and before the first.
        up_hysteresis, down_hysteresis: are added to the means at which lengths change.
        ceiling_coeff: above 0: no length above the mean times this, rounded up.
    """

    kind: str = "sglang_adaptive"
    candidate_steps: list[int] = field(default_factory=lambda: [1, 3, 5, 7])
    initial_steps: int = 3
    ema_alpha: float = 0.2
    update_interval: int = 5
    warmup: int = 10
    up_hysteresis: float = 0.0
    down_hysteresis: float = -0.25
    ceiling_coeff: float = 0.0

    @property
    def adapts(self) -> bool:
        """See `LengthPolicy.adapts`."""
        return True

    @property
    def may_be_empty(self) -> bool:
        """See `LengthPolicy.may_be_empty`."""
        return 0 in self.candidate_steps

    def begin(self, budget: int, step_s: np.ndarray | None = None) -> Lengths:
        """See `LengthPolicy.begin`."""
        return Steps(self)

    def misfit(self, budget: int, batch: int) -> str | None:
        """See `LengthPolicy.misfit`."""
        if (most := max(self.candidate_steps)) <= budget:
            return None
        return f"length.candidate_steps has {most}; budget={budget} is the most tokens of a chain"

    def check(self) -> None:
        """See `LengthPolicy.check`."""
        steps = self.candidate_steps
        if not steps or sorted(set(steps)) != steps or steps[0] < 0 or steps[-1] < 1:
            raise self.refuse("candidate_steps", "whole numbers, ascending, 0 or more, one above 0")
        check_share(self, "ema_alpha")
        if self.update_interval < 1:
            raise self.refuse("update_interval", "1 or more")
        for name in ("warmup", "initial_steps", "ceiling_coeff"):
            if getattr(self, name) < 0:
                raise self.refuse(name, "0 or more")
