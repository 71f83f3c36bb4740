"""The length that makes the most expected tokens per second, by measured costs and what was accepted so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specdraft.prediction.length.base import LengthPolicy, Lengths, Said, check_share


class Paying(Lengths):
    """Counts what was judged and what was accepted, the last steps the most.

    Args:
        how: the policy.
        step_s: see `LengthPolicy.begin`.
    """

    def __init__(self, how: Goodput, step_s: np.ndarray) -> None:
        self._how, self._step_s = how, step_s
        self._accepted = self._judged = 0.0

    def next(self) -> int:
        """See `Lengths.next`; of equals the fewest."""
        how = self._how
        rate = (how.prior_tokens * how.prior + self._accepted) / (how.prior_tokens + self._judged)
        tokens = np.cumsum(rate ** np.arange(len(self._step_s)))  # SmartSpec's (1 - rate^(k + 1)) / (1 - rate)
        return int((tokens / self._step_s).argmax())

    def observe(self, accepted: int, said: Said) -> None:
        """See `Lengths.observe`."""
        decay, judged = self._how.decay, min(accepted + 1, len(said.log_prob))
        self._accepted = decay * self._accepted + accepted
        self._judged = decay * self._judged + judged


@dataclass
class Goodput(LengthPolicy):
    """As many tokens as make the most expected tokens per second: expected ones of independent tokens with the
    acceptance rate of the text so far, seconds from the pair's measured costs (SmartSpec's goodput; Liu et al. 2024,
    section 4). It may be none.

    Attributes:
        prior, prior_tokens: the acceptance rate that is assumed before anything is judged, and the weight of that, in
            tokens.
        decay: weight of what was judged a step before; below 1, so that a text whose drafts failed is tried again.
    """

    kind: str = "goodput"
    prior: float = 0.7
    prior_tokens: float = 4.0
    decay: float = 0.9
    needs_costs = True

    @property
    def adapts(self) -> bool:
        """See `LengthPolicy.adapts`."""
        return True

    @property
    def may_be_empty(self) -> bool:
        """See `LengthPolicy.may_be_empty`."""
        return True

    def begin(self, budget: int, step_s: np.ndarray | None = None) -> Lengths:
        """See `LengthPolicy.begin`."""
        assert step_s is not None, "see LengthPolicy.needs_costs"
        return Paying(self, step_s)

    def check(self) -> None:
        """See `LengthPolicy.check`."""
        check_share(self, "prior")
        check_share(self, "decay")
        if self.prior_tokens <= 0:
            raise self.refuse("prior_tokens", "above 0")
