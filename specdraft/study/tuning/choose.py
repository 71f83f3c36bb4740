"""Which candidate is the fastest at one point of context and batch, chosen on one half of the prompts and timed on the
other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from specdraft.bench.curve import CostCurve
from specdraft.results.best_at_time import Fastest, Times, costs_shares, fastest, speed_ratio
from specdraft.results.intervals import Interval
from specdraft.study.tuning.answer import Candidate
from specdraft.study.tuning.engines import Setting

FEWEST = 10  # prompts: with fewer there is no half to choose on


class Choice(NamedTuple):
    """The fastest of some candidates.

    Attributes:
        share: what the costs' own error moves its speed-up by (see `costs_shares`).
    """

    best: Candidate
    seconds: np.ndarray
    share: float


class Field(NamedTuple):
    """All candidates at one point.

    Attributes:
        candidates: by name, those of `times`.
        halves: `[P]` which half a prompt is in.
        costs: pair -> what drafting and verifying cost with it.
        shares: `[C]` see `costs_shares`.
    """

    times: Times
    candidates: Mapping[str, Candidate]
    halves: np.ndarray
    costs: Mapping[str, CostCurve]
    shares: np.ndarray

    @classmethod
    def of(
        cls, times: Times, candidates: Mapping[str, Candidate], halves: np.ndarray, costs: Mapping[str, CostCurve]
    ) -> Field:
        """With what the candidates' intervals say of costs."""
        whole = [candidates[name].speedup for name in times.names]
        return cls(times, candidates, halves, costs, costs_shares(times, whole))

    @property
    def chains(self) -> list[bool]:
        """`[C]` which are chains."""
        return [one.chain for one in self._settings]

    @property
    def aside(self) -> list[bool]:
        """`[C]` which are lists of rank paths that only versions without the engine's other settings take."""
        others = any(not one.choices for one in self._settings)
        return [one.choices and others for one in self._settings]

    @property
    def usual(self) -> list[bool]:
        """`[C]` the others."""
        return [not aside for aside in self.aside]

    @property
    def trees(self) -> list[bool]:
        """`[C]` which of these are trees."""
        return [usual and not chain for usual, chain in zip(self.usual, self.chains, strict=True)]

    @property
    def _settings(self) -> list[Setting]:
        return [self.candidates[name].setting for name in self.times.names]

    def choose(self, wanted: Sequence[bool]) -> Choice | None:
        """The fastest of some; of none None."""
        times = self.times.only(wanted)
        if not times.names:
            return None
        return self._choice(fastest(times, self.halves))

    def _choice(self, found: Fastest) -> Choice:
        place = list(self.times.names).index(found.name)
        return Choice(self.candidates[found.name], found.seconds, float(self.shares[place]))

    def speedup(self, choice: Choice) -> Interval:
        """Over plain decoding, on the prompts that did not choose it."""
        return speed_ratio(self.times.plain_s, choice.seconds, self.times.categories, choice.share)

    def over(self, one: Choice, other: Choice) -> Interval:
        """How many times the speed of another choice one has."""
        return speed_ratio(other.seconds, one.seconds, self.times.categories, self._costs_share(one, other))

    def _costs_share(self, one: Choice, other: Choice) -> float:
        """What the costs' own error moves the ratio of two choices' times by, as a share of it: with one drafter both
        have the same costs, and what moves both alike does not count."""
        if one.best.pair != other.best.pair:
            return float(np.hypot(one.share, other.share))
        curve = self.costs[one.best.pair]
        return float(np.linalg.norm(moved(curve, one.best) - moved(curve, other.best)))

    def by_category(self, usual: Choice) -> dict[str, tuple[Candidate, Interval]]:
        """Where another candidate is faster than the choice of all categories, beyond the interval."""
        found = {}
        kinds, usual_ones = np.asarray(self.times.categories), self.times.only(self.usual)
        for kind in dict.fromkeys(self.times.categories):
            here = kinds == kind
            if here.sum() < FEWEST:
                continue
            part = usual_ones._replace(seconds=usual_ones.seconds[:, here], plain_s=usual_ones.plain_s[here])
            own = self._choice(fastest(part, self.halves[here]))
            share = self._costs_share(own, usual)
            ratio = speed_ratio(usual.seconds[here], own.seconds, kinds[here].tolist(), share)
            if ratio.known and ratio.low > 1:
                found[str(kind)] = (own.best, ratio)
        return found


def moved(curve: CostCurve, candidate: Candidate) -> np.ndarray:
    """`[M]` how much of itself the time of a candidate's text moves with each of the costs' errors (see
    `CostCurve.varied`), by the mean size of its trees."""

    def seconds(costs: CostCurve) -> float:
        fed, most = candidate.fed, max(1, round(candidate.drafted))
        step = costs.of_steps(fed[None], most, dynamic=not candidate.setting.chain)
        return costs.prefill_s + candidate.steps * float(step.fixed_s[0] + step.verify_s[most])

    usual = seconds(curve)
    return np.array([seconds(one) / usual - 1 for one in curve.varied])
