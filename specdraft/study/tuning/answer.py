"""What `specdraft tune` answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import nan
from typing import Any

import numpy as np

from specdraft.bench.points import CostPoint
from specdraft.results.intervals import Interval
from specdraft.study.tuning.engines import Setting

SPECULATE, DO_NOT, OPEN = "speculate", "do not speculate", "open"


@dataclass(frozen=True)
class Candidate:
    """One way to set the engine.

    Attributes:
        told: the engine's own names.
        speedup: of an estimated text over plain decoding, on all prompts: of many candidates the best one's flatters.
        steps: of a prompt, on average; `drafted`: draft tokens of a step, likewise.
    """

    told: dict[str, Any]
    setting: Setting
    pair: str
    block_efficiency: Interval
    speedup: Interval
    identifier: str
    steps: float
    drafted: float

    @property
    def fed(self) -> np.ndarray:
        """`[depth]` how many nodes each level is drafted from, on average."""
        levels = round(self.drafted) if self.setting.chain else self.depth
        return np.array([1, *[min(self.setting.top_k, self.nodes)] * (levels - 1)])

    @property
    def nodes(self) -> int:
        """Draft tokens of a step, at most."""
        return self.setting.nodes

    @property
    def depth(self) -> int:
        """Draft levels."""
        return self.setting.steps


@dataclass(frozen=True)
class AtPoint:
    """What is best for a context and a batch.

    Attributes:
        best: the fastest candidate on all prompts.
        speedup: of what was chosen on the other half of the prompts, over plain decoding.
    """

    point: CostPoint
    best: Candidate
    speedup: Interval

    @property
    def verdict(self) -> str:
        """`speculate`, `do not speculate`, or `open` where the prompts do not tell."""
        return verdict(self.speedup)


@dataclass(frozen=True)
class Tuned:
    """The answer, at the first of the points that were asked for.

    Attributes:
        best, speedup: see `AtPoint`.
        tree_over_chain: speed of the best tree over that of the best chain, likewise; None where there is but one.
        best_chain, best_tree: the fastest of each on all prompts.
        best_choices: the fastest tree that is a list of rank paths, where the engine's other trees are not; with its
            speed-up on the prompts that did not choose it.
        needed_tokens: tokens per step at which the best candidate is as fast as plain decoding.
        by_category: category -> what is faster there than the choice of all categories, beyond the interval, and by how
            much; either chosen on the other half of the prompts.
        points: every point, in the order in which they were asked for.
        left_out: points that say nothing, and why.
        rates: `[depth]` how probable it is that as many draft tokens are accepted.
        candidates: the fastest first.
        files: name -> text of what the engine reads.
    """

    engine: str
    best: Candidate
    speedup: Interval
    tree_over_chain: Interval | None
    best_chain: Candidate | None
    best_tree: Candidate | None
    best_choices: tuple[Candidate, Interval] | None
    needed_tokens: float
    by_category: dict[str, tuple[Candidate, Interval]]
    points: list[AtPoint]
    left_out: list[str]
    candidates: list[Candidate]
    prompts: int
    rates: list[Interval] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """See `AtPoint.verdict`."""
        return verdict(self.speedup)

    @property
    def conditional(self) -> list[float]:
        """`[depth]` of each rate, given those before."""
        values = [1.0, *(rate.value for rate in self.rates)]
        return [after / before if before else nan for before, after in pairwise(values)]

    @property
    def several(self) -> bool:
        """Whether its candidates have several drafters."""
        return len({one.pair for one in self.candidates}) > 1


def verdict(speedup: Interval) -> str:
    """Whether a speed-up is one."""
    return SPECULATE if speedup.low > 1 else DO_NOT if speedup.high < 1 else OPEN


@dataclass(frozen=True)
class BreakEven:
    """Between which of the batches that were looked at speculation stops paying, at one context.

    Attributes:
        pays: the largest batch up to which it does, by the estimate; None: at none.
        stops: the smallest one from which it does not; None: it pays at all of them.
    """

    context: int
    pays: int | None
    stops: int | None


def break_even(points: Sequence[AtPoint]) -> BreakEven | None:
    """At the first context; None where only one batch was looked at."""
    here = sorted((at for at in points if at.point.context == points[0].point.context), key=lambda at: at.point.batch)
    if len(here) < 2:
        return None
    pays = None
    for at in here:
        if at.speedup.value <= 1:
            return BreakEven(at.point.context, pays, at.point.batch)
        pays = at.point.batch
    return BreakEven(here[0].point.context, pays, None)
