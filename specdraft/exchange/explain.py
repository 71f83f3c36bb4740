"""What may tell another engine's figure from ours, each possibility computed: another definition of the same name, or
another setting that a study has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from specdraft.exchange.reading import METRICS, Reading, mean_of_ratios
from specdraft.exchange.rows import DERIVED, KEYS, name_of
from specdraft.results.bounds import bounds, ratios_of_sums
from specdraft.results.intervals import Interval
from specdraft.results.metrics import RATIOS
from specdraft.results.side_by_side import independent_ends
from specdraft.results.study_side import StudySide

# keys that are one choice: a pair brings its models, a tree of its own size its budget
AXES = (("pair", "target", "draft", "dtype", "drafter"), ("tree",), ("budget",), ("tree", "budget"), ("drafter",),
        ("temperature",), ("acceptance",), ("temperature", "acceptance"), ("top_k",), ("top_p",), ("pruning",),
        ("length",), ("max_new_tokens",), ("prompts",), ("dtype",), ("engine",), ("batch",))  # fmt: skip
FOLLOW = ("nodes", "depth", "cost_context", "cost_batch", "cache", "seed")
AS_NAMED = "as it is named"


@dataclass(frozen=True)
class Possibility:
    """One way to set the two beside each other.

    Attributes:
        metric: whose figure it is about.
        what: what would have to be so.
        theirs: the figure.
        ours: the value that it would have here, with the interval over prompts.
        together: it brings the two together, within the interval; of a setting, all figures that the file has at once.
            None: there is no interval to tell by.
        setting: it is another row's or another study's, not another definition.
    """

    metric: str
    what: str
    theirs: float
    ours: Interval
    together: bool | None
    setting: bool = False


def within(theirs: Interval, ours: Interval, half_unit: float = 0.0) -> bool | None:
    """Whether two figures are the same as far as their intervals tell; None where there is no interval.

    Args:
        theirs: its ends are NaN where the file has no requests.
        ours: over prompts.
        half_unit: by how much `theirs` may be off because it was printed rounded.
    """
    slack = half_unit + 1e-6 * abs(ours.value)
    if abs(theirs.value - ours.value) <= slack:
        return True
    if not ours.known:
        return None
    if not theirs.known:
        return bool(ours.low - slack <= theirs.value <= ours.high + slack)
    ((low, high),) = independent_ends(np.array([theirs]), np.array([ours]))
    return bool(low - slack <= 0 <= high + slack)


def compared(reading: Reading, row: pd.Series[Any]) -> list[Possibility]:
    """Each of our ratios that the file has, beside the row's."""
    return [_possibility(reading, metric, AS_NAMED, Interval.of(row, metric)) for metric in _known(reading)]


def other_definitions(reading: Reading, row: pd.Series[Any], records: pd.DataFrame | None) -> list[Possibility]:
    """What the row's figures would be if the file defined its own otherwise than it says."""
    found: list[Possibility] = []
    values = {metric: Interval.of(row, metric) for metric in METRICS}
    own = None if records is None else records[records["combination"] == row["combination"]]
    for metric in _known(reading):
        made = [*_of_the_bonus(metric, values, row), *_of_the_count(metric, values, row)]
        found += [_possibility(reading, metric, what, ours) for what, ours in made]
        here = _mean(own, metric)
        if not isnan(here.value) and isnan(reading.counts.steps):  # of counts it is known to be a ratio of sums
            found.append(_possibility(reading, metric, "the mean over prompts is given, not the ratio of sums", here))
        there = Interval(mean_of_ratios(reading.requests, *RATIOS[metric]), nan, nan)
        if not isnan(here.value) and not isnan(there.value):
            what = "the mean over requests, there and here"
            found.append(Possibility(metric, what, there.value, here, within(there, here)))
    return found


def other_settings(reading: Reading, row: pd.Series[Any], summary: pd.DataFrame) -> list[Possibility]:
    """Rows of the same study that differ from this one in one choice."""
    found = []
    for _, other in summary.iterrows():
        differs = tuple(key for key in KEYS if key not in FOLLOW and not _equal(row[key], other[key]))
        if differs and any(set(differs) <= set(axis) for axis in AXES):
            named = [key for key in differs if key not in DERIVED] or differs
            found += _setting(reading, f"it is {name_of(other, named)}", other)
    return found


def other_studies(
    reading: Reading, row: pd.Series[Any], study: StudySide, others: Sequence[StudySide]
) -> Iterator[Possibility]:
    """The same row of studies that were run otherwise: with another chat template, say."""
    for other in others:
        differs = _settings_that_differ(study.config, other.config)
        summary = other.summary
        keys = [key for key in KEYS if key not in (*FOLLOW, "prompts", "max_new_tokens")]
        alike = np.logical_and.reduce([[_equal(row[key], value) for value in summary[key]] for key in keys])
        for _, there in summary[alike].iterrows():
            what = f"as in {other.folder}: {differs or 'the same settings'}"
            yield from _setting(reading, what, there)


def _setting(reading: Reading, what: str, row: pd.Series[Any]) -> list[Possibility]:
    """Another row's figures: they bring the two together only if all of them do."""
    each = [_possibility(reading, metric, what, Interval.of(row, metric)) for metric in _known(reading)]
    disagree = any(one.together is False for one in each)
    return [replace(one, setting=True, together=False if disagree else one.together) for one in each]


def _possibility(reading: Reading, metric: str, what: str, ours: Interval) -> Possibility:
    theirs = reading.intervals[metric]
    return Possibility(metric, what, theirs.value, ours, within(theirs, ours, reading.half_unit(metric)))


def _known(reading: Reading) -> list[str]:
    return [metric for metric in METRICS if not isnan(reading.ratios[metric])]


def _of_the_bonus(metric: str, values: dict[str, Interval], row: pd.Series[Any]) -> Iterator[tuple[str, Interval]]:
    """The token that the target adds to each step: counted or not, and where."""
    length, tokens, rate = (values[name] for name in ("acceptance_length", "block_efficiency", "acceptance_rate"))
    if metric == "block_efficiency":
        yield "the bonus token is not counted there", length
        yield "a bonus token is counted in every step, also in a cut last one", _plus(length, 1)
        yield "the bonus token is counted twice there", _plus(tokens, 1)
    elif metric == "acceptance_length":
        yield "the bonus token is counted there", tokens
    elif row["drafted_tokens"]:
        yield "bonus tokens are counted as accepted there", _plus(rate, row["bonus_tokens"] / row["drafted_tokens"])
        yield (
            "the root is counted as drafted there",
            _times(rate, row["drafted_tokens"] / (row["drafted_tokens"] + row["steps"])),
        )


def _of_the_count(metric: str, values: dict[str, Interval], row: pd.Series[Any]) -> Iterator[tuple[str, Interval]]:
    """First tokens counted, or steps counted from 0."""
    if metric == "acceptance_rate" or not row["steps"]:
        return
    texts = row["new_tokens"] - row["accepted_tokens"] - row["bonus_tokens"]  # each has one token of the prefill
    if metric == "block_efficiency":
        yield "each text's first token, of the prefill, is counted there", _plus(values[metric], texts / row["steps"])
    if row["steps"] > texts:
        from_0 = _times(values[metric], row["steps"] / (row["steps"] - texts))
        yield "the index of the last step, from 0, is taken for the steps there", from_0


def _mean(own: pd.DataFrame | None, metric: str) -> Interval:
    """The mean over prompts of each one's own ratio."""
    if own is None or own.empty:
        return Interval(nan, nan, nan)
    kept = own[own[metric].notna()]
    values = kept[metric].to_numpy(float)
    ratios = ratios_of_sums(values[None], np.ones((1, len(values))))
    categories = pd.factorize(kept["category"])[0]
    ((low, high),) = bounds(ratios, categories)
    return Interval(float(ratios.estimates[0]), float(low), float(high))


def _plus(interval: Interval, by: float) -> Interval:
    return Interval(*(bound + by for bound in interval))


def _times(interval: Interval, by: float) -> Interval:
    return Interval(*(bound * by for bound in interval))


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b or (pd.isna(a) and pd.isna(b)))


def _settings_that_differ(ours: Any, theirs: Any) -> str:
    """`prompts.chat_template=none`, ... of two configurations, as the second has them."""
    flat = [_flat(config) for config in (ours, theirs)]
    names = [name for name in dict.fromkeys([*flat[0], *flat[1]]) if flat[0].get(name) != flat[1].get(name)]
    return " ".join(f"{name}={flat[1].get(name, 'as it is by default')}" for name in names if name != "name")


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
