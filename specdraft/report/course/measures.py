"""What every prompt counted at each setting, and intervals over prompts from that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from specdraft.errors import ResultsError
from specdraft.replay.folds import folds
from specdraft.results.bounds import Ratios, bounds, bounds_of_differences, ratios_of_sums
from specdraft.results.intervals import Interval
from specdraft.results.metrics import possible
from specdraft.results.two_halves import mixed, on_other_half, picked

TERMS = (
    "accepted_tokens",
    "bonus_tokens",
    "drafted_tokens",
    "steps",
    "new_tokens",
    "looped_tokens",
    "est_s",
    "est_plain_s",
)
PLACE = {name: place for place, name in enumerate(TERMS)}
METRICS = {  # -> numerator terms, denominator; see `results.metrics.RATIOS`
    "block_efficiency": (TERMS[:2], "steps"),
    "acceptance_length": (TERMS[:1], "steps"),
    "acceptance_rate": (TERMS[:1], "drafted_tokens"),
    "loop_share": (("looped_tokens",), "new_tokens"),
    "est_speedup": (("est_plain_s",), "est_s"),
}
ONE_VALUE = ("drafter", "max_new_tokens", "top_k", "top_p", "draft_temperature", "pruning", "length", "batch", "engine",
             "prompts")  # fmt: skip
EQUAL_ON_CHAINS = {  # rules that are the same law on a chain (tests/test_equal_settings.py)
    "recursive": "rejection",
    "no_replacement": "rejection",
    "kseq": "rejection",
    "traversal": "block",
}
CHAIN = "chain"


class Setting(NamedTuple):
    """What is measured of a pair."""

    pair: str
    tree: str
    budget: int
    acceptance: str = "greedy"
    temperature: float = 0.0


class Chosen(NamedTuple):
    """A setting that was picked on one half of the prompts and measured on the other, both ways round.

    Attributes:
        picked: what each half picks, the same where the halves agree.
        speed: measured on the half that did not pick.
    """

    picked: tuple[Setting, ...]
    speed: Interval


@dataclass(frozen=True)
class Price:
    """What a verification step costs, in passes of the target over one token: `1 + level * depth + node * nodes`."""

    level: float
    node: float

    def of(self, depth: float, nodes: float) -> float:
        """A step's cost."""
        return 1 + self.level * depth + self.node * nodes


Priced = Price | None  # None: the costs that were measured


@dataclass(frozen=True, eq=False)
class Measures:
    """The counts of a study.

    Attributes:
        sums: setting -> `[terms, P]`, the `TERMS` of each prompt of its pair, in the pair's order.
        sizes: setting -> depth and nodes.
        categories: pair -> `[P]`.
    """

    sums: Mapping[Setting, np.ndarray]
    sizes: Mapping[Setting, tuple[float, float]]
    categories: Mapping[str, np.ndarray]

    @property
    def pairs(self) -> list[str]:
        """In the study's order."""
        return list(self.categories)

    def settings(self, pair: str | None = None, temperature: float | None = None) -> list[Setting]:
        """All that were measured, of a pair, at a temperature."""
        return [
            setting
            for setting in self.sums
            if pair in (None, setting.pair) and temperature in (None, setting.temperature)
        ]

    def has(self, *settings: Setting) -> bool:
        """Whether all of these were measured."""
        return all(setting in self.sums for setting in settings)

    def budgets(self, like: Setting) -> list[int]:
        """The budgets at which a setting was measured, whatever its own."""
        return sorted(setting.budget for setting in self.sums if setting._replace(budget=like.budget) == like)

    def ratio(self, setting: Setting, metric: str = "block_efficiency", category: str | None = None) -> Interval:
        """A metric with its interval, over all prompts or those of a category."""
        kinds = self.categories[setting.pair]
        kept = np.full(len(kinds), True) if category is None else kinds == category
        ratios = self._ratios(setting, metric, kept)
        return _interval(ratios, bounds(ratios, _codes(kinds[kept]), possible(metric, self.sizes[setting][0])))

    def difference(self, first: Setting, second: Setting, metric: str = "block_efficiency", per: float = 1) -> Interval:
        """First minus second on the same prompts, divided by `per`."""
        kinds = self.categories[first.pair]
        every = np.full(len(kinds), True)
        a, b = self._ratios(first, metric, every), self._ratios(second, metric, every)
        (a_low, a_high), (b_low, b_high) = (possible(metric, self.sizes[one][0]) for one in (first, second))
        limits = a_low - b_high, a_high - b_low
        ((low, high),) = bounds_of_differences(a, b, _codes(kinds), limits) / per
        return Interval(float(a.estimates[0] - b.estimates[0]) / per, float(low), float(high))

    def priced(self, settings: Iterable[Setting], price: Priced) -> list[Setting]:
        """Those of the settings whose cost is known."""
        return [one for one in settings if price or not np.isnan(self.sums[one][PLACE["est_s"]]).any()]

    def speed(self, setting: Setting, price: Priced) -> Interval:
        """The speed-up over plain decoding, over prompts, where a step costs what `price` says."""
        if price is None:
            return self.ratio(setting, "est_speedup")
        value, low, high = self.ratio(setting)
        cost = price.of(*self.sizes[setting])
        return Interval(value / cost, low / cost, high / cost)

    def best(self, settings: Iterable[Setting], price: Priced) -> Chosen:
        """The quickest of settings of one pair: picked on one half of the prompts of each category and measured on the
        other, both ways round, so that the number does not profit from the picking."""
        listed = self.priced(settings, price)
        kinds = self.categories[listed[0].pair]
        half = folds(kinds.tolist(), 0)
        above, below = self._speed_terms(listed, price)
        every = ratios_of_sums(above, below)
        pair = picked(on_other_half(every, half))
        ratios = mixed(every, pair, half)
        chosen = tuple(dict.fromkeys(listed[row] for row in reversed(pair)))
        return Chosen(chosen, _interval(ratios, bounds(ratios, _codes(kinds))))

    def _speed_terms(self, settings: list[Setting], price: Priced) -> tuple[np.ndarray, np.ndarray]:
        """`[n, P]` what plain decoding costs and what these cost, of each prompt."""
        counted = np.stack([self.sums[setting] for setting in settings])
        if price is None:
            return counted[:, PLACE["est_plain_s"]], counted[:, PLACE["est_s"]]
        costs = np.array([price.of(*self.sizes[setting]) for setting in settings])
        emitted = counted[:, PLACE["accepted_tokens"]] + counted[:, PLACE["bonus_tokens"]]
        return emitted, counted[:, PLACE["steps"]] * costs[:, None]

    def _ratios(self, setting: Setting, metric: str, kept: np.ndarray) -> Ratios:
        terms = dict(zip(TERMS, self.sums[setting][:, kept], strict=True))
        names, below = METRICS[metric]
        above = np.sum([terms[name] for name in names], axis=0)
        return ratios_of_sums(above[None], terms[below][None])


def measures_of(records: pd.DataFrame) -> Measures:
    """Count records by setting and prompt; chains under rules that are equal by definition once.

    Raises:
        ResultsError: a pair was measured under several settings that a course report does not tell apart.
    """
    _check(records)
    records = _with_terms(once(records))
    sums: dict[Setting, np.ndarray] = {}
    sizes: dict[Setting, tuple[float, float]] = {}
    categories: dict[str, np.ndarray] = {}
    for pair, rows in records.groupby("pair", sort=False):
        prompts = rows.drop_duplicates(["prompt_id", "turn"])[["prompt_id", "turn", "category"]]
        categories[str(pair)] = prompts["category"].astype(str).to_numpy()
        order = pd.MultiIndex.from_frame(prompts[["prompt_id", "turn"]])
        for keys, group in rows.groupby(["tree", "budget", "acceptance", "temperature"], sort=False):
            tree, budget, acceptance, temperature = keys
            setting = Setting(str(pair), str(tree), int(str(budget)), str(acceptance), float(str(temperature)))
            counted = group.groupby(["prompt_id", "turn"])[list(TERMS)].sum(min_count=1).reindex(order, fill_value=0)
            sums[setting] = counted.to_numpy(float).T
            sizes[setting] = float(group["depth"].iloc[0]), float(group["nodes"].iloc[0])
    return Measures(sums, sizes, categories)


def once(records: pd.DataFrame) -> pd.DataFrame:
    """Rows of chains under the first name of their law, without those that are then there twice."""
    law = records["acceptance"].map(EQUAL_ON_CHAINS)
    named = records.assign(acceptance=records["acceptance"].where((records["tree"] != CHAIN) | law.isna(), law))
    return named.drop_duplicates(["pair", "tree", "budget", "acceptance", "temperature", "prompt_id", "turn", "repeat"])


def _with_terms(records: pd.DataFrame) -> pd.DataFrame:
    """With the sums that the ratios of each row came from."""
    est_s = records["new_tokens"] / records["est_tokens_per_s"]
    return records.assign(
        looped_tokens=records["loop_share"] * records["new_tokens"],
        est_s=est_s,
        est_plain_s=records["est_speedup"] * est_s,
    )


def _check(records: pd.DataFrame) -> None:
    for pair, rows in records.groupby("pair"):
        for key in ONE_VALUE:
            if rows[key].nunique() > 1:
                found = ", ".join(map(str, rows[key].unique()[:3]))
                raise ResultsError(f"a course report takes one {key} for each pair; {pair} has {found}")


def _codes(kinds: np.ndarray) -> np.ndarray:
    return np.unique(kinds, return_inverse=True)[1]


def _interval(ratios: Ratios, ends: np.ndarray) -> Interval:
    return Interval(float(ratios.estimates[0]), *map(float, ends[0]))
