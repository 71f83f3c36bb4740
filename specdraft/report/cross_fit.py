"""What is best, picked on one half of the prompts and measured on the other one, both ways: picked and measured on the
same prompts, the best of many looks better than it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from specdraft.errors import ResultsError
from specdraft.replay.folds import folds
from specdraft.results.bounds import Ratios, bounds, bounds_of_differences, ratios_of_sums, with_error
from specdraft.results.intervals import NORMAL, Interval
from specdraft.results.study_tables import read_records
from specdraft.results.two_halves import Pair, mixed, on_other_half, picked

COLUMNS = ("combination", "prompt_id", "category", "steps", "accepted_tokens", "bonus_tokens", "new_tokens", "wall_s",
           "speedup", "est_tokens_per_s", "est_speedup")  # fmt: skip
SEED = 0  # of the halves: one split, whatever is asked
LEAST = {"block_efficiency": 1.0}  # what a ratio cannot fall below, where that is not 0


class Standing(NamedTuple):
    """The first two of some combinations, which are told by their places.

    Attributes:
        leaders: for each half, what leads on the other half.
        runners: for each half, the best of those that differ from its leader, on the other half; -1: there is none.
        value: the leaders', each measured on its own half.
        lead: leaders minus runners-up, likewise.
    """

    leaders: Pair
    runners: Pair
    value: Interval
    lead: Interval


class Halves:
    """Each combination's sums by prompt, and which half each prompt is in; a prompt's turns are in one.

    Args:
        records: one row per combination, prompt and repeat (see `results.records_table`).
    """

    def __init__(self, records: pd.DataFrame) -> None:
        prompts, names = pd.factorize(records["prompt_id"], sort=True)
        of_prompt = records["category"].astype(str).groupby(prompts, sort=True).first()
        places, combinations = pd.factorize(records["combination"])
        self._place = {str(name): place for place, name in enumerate(combinations)}
        self._records = records
        self._kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._cells, self._shape = places * len(names) + prompts, (len(combinations), len(names))
        self._categories = pd.factorize(of_prompt)[0]
        self.half = folds(list(of_prompt), SEED)

    @property
    def usable(self) -> bool:
        """There are prompts in both halves."""
        return len(np.unique(self.half)) == 2

    def knows(self, combinations: Sequence[str]) -> bool:
        """There are records of all of them."""
        return self.usable and all(name in self._place for name in combinations)

    def standing(self, combinations: Sequence[str]) -> Standing:
        """Who leads in block efficiency; of equals the first. At least one combination."""
        ratios = self._of("block_efficiency", combinations)
        on_other = on_other_half(ratios, self.half)
        leaders = picked(on_other)
        same = [self._equal(ratios, leader) for leader in leaders]
        rivals = np.where(same, -np.inf, on_other)
        alone, (one, two) = np.all(same, axis=1), picked(rivals)
        runners = -1 if alone[0] else one, -1 if alone[1] else two
        value = self._interval(mixed(ratios, leaders, self.half), "block_efficiency")
        if -1 in runners:
            return Standing(leaders, runners, value, Interval(np.nan, np.nan, np.nan))
        first, second = (mixed(ratios, pair, self.half) for pair in (leaders, runners))
        ends = bounds_of_differences(first, second, self._categories)[0]
        lead = Interval(float((first.estimates - second.estimates)[0]), *map(float, ends))
        return Standing(leaders, runners, value, lead)

    def best(self, ratio: str, combinations: Sequence[str], lowest: bool = False) -> tuple[Pair, Interval]:
        """For each half what has the most of a ratio on the other half, or the least; what they have on their own."""
        ratios = self._of(ratio, combinations)
        on_other = on_other_half(ratios, self.half) * (-1 if lowest else 1)
        pair = picked(on_other)
        return pair, self._interval(mixed(ratios, pair, self.half), ratio)

    def over_prompts(self, ratio: str, combination: str) -> Interval:
        """A combination's own ratio, on all prompts."""
        return self._interval(self._of(ratio, [combination]), ratio)

    def _of(self, ratio: str, combinations: Sequence[str]) -> Ratios:
        rows = [self._place[name] for name in combinations]
        above, below = self._sums(ratio)
        return ratios_of_sums(above[rows], below[rows])

    def _sums(self, ratio: str) -> tuple[np.ndarray, np.ndarray]:
        """`[n, P]` numerators and denominators; times are told from what records say of them."""
        if ratio not in self._kept:
            rows = self._records
            if ratio == "block_efficiency":
                above, below = rows["accepted_tokens"] + rows["bonus_tokens"], rows["steps"]
            elif ratio == "speedup":
                above, below = rows["speedup"] * rows["wall_s"], rows["wall_s"]
            else:
                below = rows["new_tokens"] / rows["est_tokens_per_s"]
                above = rows["est_speedup"] * below
            self._kept[ratio] = self._summed(above), self._summed(below)
        return self._kept[ratio]

    def _summed(self, values: pd.Series[float]) -> np.ndarray:
        weights = np.nan_to_num(values.to_numpy(float))
        return np.bincount(self._cells, weights, int(np.prod(self._shape))).reshape(self._shape)

    def _equal(self, ratios: Ratios, row: int) -> np.ndarray:
        """`[n]` whether a row is the same as this one on every prompt."""
        equal: np.ndarray = (ratios.above == ratios.above[row]).all(1) & (ratios.below == ratios.below[row]).all(1)
        return equal

    def _interval(self, ratios: Ratios, ratio: str) -> Interval:
        ends = bounds(ratios, self._categories, (LEAST.get(ratio, 0.0), np.inf))[0]
        return Interval(float(ratios.estimates[0]), *map(float, ends))


def halves_of(folder: Path) -> Halves | None:
    """A study's; None where its records are not kept or cannot be read, or all prompts are in one half."""
    with suppress(ResultsError):
        halves = Halves(read_records(folder, COLUMNS))
        return halves if halves.usable else None
    return None


def best_row(
    halves: Halves | None, rows: pd.DataFrame, ratio: str, lowest: bool = False
) -> tuple[pd.Series[Any], Interval]:
    """The row of a summary that has the most of a ratio (or the least), and what is measured of such a pick: where both
    halves pick this row, its own interval; otherwise that of what they pick, each on the prompts that did not pick it.

    Args:
        halves: None: picked and measured on the same prompts.
        rows: at least one; `ratio` is known in all of them.
    """
    ranked = rows.sort_values(ratio, ascending=lowest, kind="stable")
    top = ranked.iloc[0]
    own, names = Interval.of(top, ratio), list(ranked["combination"])
    if halves is None or not halves.knows(names):
        return top, own
    pair, value = halves.best(ratio, names, lowest)
    if pair == (0, 0):
        return top, own
    return top, _with_the_error_of(own, halves.over_prompts(ratio, names[0]), value)


def _with_the_error_of(own: Interval, over_prompts: Interval, value: Interval) -> Interval:
    """An interval over prompts, with what one more source of error adds to that of a summary row."""
    if not (own.known and over_prompts.known and value.known):
        return value
    logs = [np.log(one.low / one.value) ** 2 for one in (own, over_prompts)]
    share = np.sqrt(max(0.0, float(logs[0] - logs[1]))) / NORMAL
    ends = with_error(np.array([value.value]), np.array([value[1:]]), np.array([share]))[0]
    return Interval(value.value, *map(float, ends))
