"""What was read from another engine's file: its figures by their own names, and what they come to in ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import isinf, isnan, nan
from typing import NamedTuple

import numpy as np
import pandas as pd

from specdraft.errors import ConfigError
from specdraft.results.bounds import bounds, ratios_of_sums
from specdraft.results.intervals import Interval
from specdraft.results.metrics import COUNTS, RATIOS, add_ratios, possible

METRICS = ("block_efficiency", "acceptance_length", "acceptance_rate")
SLACK = 1e-9  # of a probability or a mean that was rounded to a float


class Counts(NamedTuple):
    """Counts in our terms (`results.metrics`); NaN where the file does not tell."""

    steps: float = nan
    drafted_tokens: float = nan
    accepted_tokens: float = nan
    bonus_tokens: float = nan
    new_tokens: float = nan

    @classmethod
    def total(cls, some: Iterable[Counts]) -> Counts:
        """The sums; NaN where one of them does not tell."""
        return cls(*map(float, np.sum([cls(*[0.0] * len(cls._fields)), *some], axis=0)))


class Figure(NamedTuple):
    """A figure as the engine gives it.

    Attributes:
        name: the engine's own.
        means: its definition.
        column: our column that it is, or is nearest to; empty: none.
        ours: its value in that column's unit; left out: the same.
        half_unit: half a unit of the last place that was printed; 0: as it was counted.
    """

    name: str
    value: float
    means: str
    column: str = ""
    ours: float = nan
    half_unit: float = 0.0

    @property
    def converted(self) -> float:
        """In our column's unit."""
        return self.value if isnan(self.ours) else self.ours


@dataclass(frozen=True)
class Reading:
    """What a file says.

    Attributes:
        kind: of the format.
        source: which program's file it is.
        figures: by the program's own names.
        counts: of the whole file.
        requests: the same by request, where the file has them.
        marginal: `[depth]` share of steps that accept a token at that depth and all before it.
        most_drafted: draft tokens of a step at most; None: not told.
        notes: what to know of the figures, a line each.
    """

    kind: str
    source: str
    figures: Sequence[Figure]
    counts: Counts = field(default_factory=Counts)
    requests: Sequence[Counts] = ()
    marginal: Sequence[float] = ()
    most_drafted: int | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    @cached_property
    def ratios(self) -> dict[str, float]:
        """Our ratios, of counts where the file has them, else of the figures themselves."""
        counted = add_ratios(pd.DataFrame([self.counts], columns=[*COUNTS]), METRICS).iloc[0]
        stated = {figure.column: figure.converted for figure in reversed(self.figures)}
        return {m: float(counted[m]) if not isnan(counted[m]) else stated.get(m, nan) for m in METRICS}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The same with their intervals over requests, where the file has enough of them."""
        return {metric: Interval(value, *self._ends(metric)) for metric, value in self.ratios.items()}

    def _ends(self, metric: str) -> tuple[float, float]:
        table = pd.DataFrame([*self.requests], columns=[*COUNTS])
        above, below = RATIOS[metric]
        terms = [table[[*above]].sum(axis=1, skipna=False).to_numpy(float), table[below].to_numpy(float)]
        if not len(table) or np.isnan(terms).any():
            return nan, nan
        ratios = ratios_of_sums(*(term[None] for term in terms))
        (ends,) = bounds(ratios, np.zeros(len(table), dtype=np.int64), possible(metric))
        return float(ends[0]), float(ends[1])

    def half_unit(self, metric: str) -> float:
        """By how much a ratio may be off because it was printed rounded."""
        if not isnan(self.counts.steps):
            return 0.0
        return next((figure.half_unit for figure in self.figures if figure.column == metric), 0.0)

    @property
    def conditional(self) -> list[float]:
        """`[depth]` share of the steps that accepted a token at every depth before it."""
        before = [1.0, *self.marginal]
        return [rate / reached if reached else nan for rate, reached in zip(self.marginal, before, strict=False)]


def check(reading: Reading, where: object) -> Reading:
    """The reading itself. Raises `ConfigError` where its counts contradict each other."""
    for number, counts in enumerate(reading.requests, 1):
        _check_counts(counts, f"{where}: request {number}: ")
    _check_counts(reading.counts, f"{where}: ")
    rates = [1.0, *reading.marginal]
    for depth, (before, rate) in enumerate(pairwise(rates), 1):
        if not -SLACK <= rate <= before + SLACK:
            raise ConfigError(
                f"{where}: position {depth - 1} is accepted in {rate:.4g} of the steps, and what comes before it in "
                f"{before:.4g}; expected shares that do not rise"
            )
    return replace(reading, notes=[*reading.notes, *_by_position(reading, where)])


def _by_position(reading: Reading, where: object) -> Iterable[str]:
    """A note where positions are missing. Raises `ConfigError` where they have more tokens than were accepted."""
    if not reading.marginal or isnan(reading.counts.steps):
        return
    accepted, by_depth = reading.counts.accepted_tokens, sum(reading.marginal) * reading.counts.steps
    rounding = 0.5 + 0.0005 * reading.counts.steps * len(reading.marginal)
    if by_depth > accepted + rounding:
        raise ConfigError(
            f"{where}: {by_depth:,.0f} tokens are accepted by position, and {accepted:,.0f} in all; these counts "
            "contradict each other"
        )
    if by_depth < accepted - rounding:
        yield f"{by_depth:,.0f} of {accepted:,.0f} accepted tokens have a position: some positions are missing"


def _check_counts(counts: Counts, named: str) -> None:
    for name, count in counts._asdict().items():
        if count < 0 or isinf(count):
            raise ConfigError(f"{named}{name}={count:g}; expected a count, 0 or more")
    for less, more in (("accepted_tokens", "drafted_tokens"), ("bonus_tokens", "steps")):
        if getattr(counts, less) > getattr(counts, more):
            raise ConfigError(
                f"{named}{less}={getattr(counts, less):g} is more than {more}={getattr(counts, more):g}; "
                "these counts contradict each other"
            )
    if counts.steps == 0:
        raise ConfigError(f"{named}there was no step; nothing was drafted, so there is nothing to compare")


def share(above: float, below: float) -> float:
    """`above / below`; NaN where there is nothing below."""
    return above / below if below else nan


def stated_otherwise(name: str, stated: float, counted: float, half_unit: float) -> Iterable[str]:
    """A note where a ratio that a file states is not what its counts give."""
    if not isnan(stated) and not isnan(counted) and abs(stated - counted) > half_unit + SLACK:
        yield f"{name} is given as {stated:g}; its counts give {counted:.4g}"


def mean_of_ratios(requests: Sequence[Counts], above: Sequence[str], below: str) -> float:
    """The mean over requests of each one's own ratio; requests without a step are left out."""
    ratios = [
        sum(getattr(one, term) for term in above) / getattr(one, below) for one in requests if getattr(one, below)
    ]
    return float(np.mean(ratios)) if ratios else nan


def emitted_bonus(steps: float, accepted: float, new_tokens: float, requests: float) -> float:
    """Bonus tokens as we count them, those that were emitted: of `new_tokens`, one a request is the prefill's.

    Returns:
        `steps` where it is not known how much was emitted, or where that does not fit the other counts.
    """
    bonus = new_tokens - requests - accepted
    return bonus if 0 <= bonus <= steps else steps


def cut_last_steps(counts: Counts, requests: float) -> Iterable[str]:
    """A note where fewer tokens were emitted than a bonus in every step comes to."""
    always = counts.accepted_tokens + counts.steps + requests
    if counts.new_tokens < always:
        yield (
            f"{counts.new_tokens:,.0f} tokens were emitted in {requests:,.0f} requests, "
            f"{always - counts.new_tokens:,.0f} fewer than first tokens, accepted tokens and a bonus in every step: "
            "texts end within a step. Our columns count what was emitted"
        )
