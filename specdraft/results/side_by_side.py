"""Two studies side by side: what changed from the first to the second, combination by combination.

Where both have a prompt, by its id and the digest of its text, differences are paired over such prompts, as those of
trees within a study are. Elsewhere the two intervals are independent, and their difference is bounded by them alone
(MOVER: Zou and Donner 2008).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from specdraft.errors import ConfigError, ResultsError, did_you_mean
from specdraft.results.bounds import LEVEL, bounds, ratios_of_sums
from specdraft.results.comparisons import NUMBERS, paired_differences
from specdraft.results.intervals import FEWEST_PROMPTS
from specdraft.results.metrics import RATIOS
from specdraft.results.prompt_sums import group_numbers, prompt_sums
from specdraft.results.study_side import StudySide
from specdraft.results.summary import ends
from specdraft.results.tables import COMBINATION_KEYS

METRICS = ("block_efficiency", "acceptance_length", "acceptance_rate", "tokens_per_s", "speedup")
TIMED = ("tokens_per_s", "speedup")
TERMS = sorted({term for metric in METRICS for term in (*RATIOS[metric][0], RATIOS[metric][1])})
DERIVED = ("nodes", "depth")  # follow from tree and budget, unless two combinations share all other keys
KEYS = [key for key in COMBINATION_KEYS if key not in ("combination", *DERIVED)]
ENDS = ("", "_lo", "_hi")
VALUES = [f"{side}{end}" for side in "ab" for end in ENDS]
BETTER, WORSE, NOISE, UNKNOWN, NEW, GONE = "better", "worse", "within noise", "no interval", "new", "gone"
VERDICTS = (BETTER, WORSE, NOISE, UNKNOWN, NEW, GONE)
RATED = (BETTER, WORSE, NOISE)
PAIRED, UNPAIRED = "paired", "unpaired"


class SideBySide(NamedTuple):
    """What two studies say of the same combinations.

    Attributes:
        keys: the columns that name a combination.
        rows: a row per combination and metric that either has: `keys`, `metric`, `a` and `b` with their ends,
            `difference` (b minus a) with its ends, `how` it was made, over how many `prompts_compared`, and `verdict`.
        common: combinations that both have.
        shared: prompts that both have with the same text.
        notes: what to know of the comparison, a line each.
    """

    keys: list[str]
    rows: pd.DataFrame
    common: int
    shared: int
    notes: list[str]

    def counts(self, metric: str) -> dict[str, int]:
        """Verdict -> rows of a metric."""
        of = self.rows.loc[self.rows["metric"] == metric, "verdict"].value_counts()
        return {verdict: int(of.get(verdict, 0)) for verdict in VERDICTS}

    def unchanged(self, metric: str) -> int:
        """Rows of a metric that are the same on every prompt."""
        of = self.rows[self.rows["metric"] == metric]
        return int((of[NUMBERS[1:]] == 0).all(axis=1).sum())

    def by_chance(self, metric: str) -> float:
        """How many rows of a metric that are not equal would be called better or worse if nothing had changed."""
        counts = self.counts(metric)
        return (1 - LEVEL) * (sum(counts[verdict] for verdict in RATED) - self.unchanged(metric))


def side_by_side(a: StudySide, b: StudySide, across: Sequence[str] = ()) -> SideBySide:
    """Compare two studies.

    Args:
        a, b: differences are b minus a.
        across: key columns that may differ: combinations that are equal otherwise are compared.

    Raises:
        ConfigError: `across` names no key column.
        ResultsError: the studies have no combination in common, or without `across` combinations are not told apart.
    """
    for key in across:
        if key not in KEYS:
            raise ConfigError(f"--across {key!r} is no key column{did_you_mean(key, KEYS)}")
    keys = _keys([a, b], across)
    numbers = group_numbers(pd.concat([a.summary[keys], b.summary[keys]], ignore_index=True), keys)
    of_a, of_b = numbers[: len(a.summary)], numbers[len(a.summary) :]
    common = np.intersect1d(of_a, of_b)
    if not len(common):
        raise ResultsError(f"{a.folder} and {b.folder} have no combination in common{_nearest(a, b, keys)}")
    names = pd.concat([a.summary[keys], b.summary[keys]], ignore_index=True)
    names = names.iloc[np.unique(numbers, return_index=True)[1]].reset_index(drop=True)
    shared = shared_prompts(a, b)
    values = [_values(side.summary, of, len(names)) for side, of in ((a, of_a), (b, of_b))]
    depths = np.fmax.reduceat(
        np.concatenate([side.summary["depth"].to_numpy(float) for side in (a, b)])[np.argsort(numbers, kind="stable")],
        np.flatnonzero(np.diff(np.sort(numbers), prepend=-1)),
    )
    paired = _paired([a, b], keys, names, depths, shared)
    tables = [_of_metric(names, metric, [v[metric] for v in values], paired.get(metric)) for metric in METRICS]
    rows = pd.concat([table for table in tables if len(table)], ignore_index=True)
    found = SideBySide(keys, rows, len(common), len(shared), [*a.notes, *b.notes])
    return found._replace(notes=[*found.notes, *_notes(found, a, b, shared)])


def shared_prompts(a: StudySide, b: StudySide) -> list[str]:
    """Prompts that both have, with the same text."""
    theirs = b.digests
    return [prompt for prompt, digest in a.digests.items() if theirs.get(prompt) == digest]


def independent_ends(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`[n, 2]` bounds of b minus a from the intervals of two independent estimates (Zou and Donner 2008, equation 4).

    Args:
        a, b: `[n, 3]` values with their ends.
    """
    difference = b[:, 0] - a[:, 0]
    below = np.hypot(b[:, 0] - b[:, 1], a[:, 2] - a[:, 0])
    above = np.hypot(b[:, 2] - b[:, 0], a[:, 0] - a[:, 1])
    return np.stack([difference - below, difference + above], 1)


def _keys(sides: list[StudySide], across: Sequence[str]) -> list[str]:
    """The columns that tell a study's combinations apart. Raises `ResultsError` where they do not."""
    keys = [key for key in KEYS if key not in across]
    for kept in (keys, [*keys, *DERIVED]):
        if not any(side.summary.duplicated(kept).any() for side in sides):
            return kept
    alike = next(side for side in sides if side.summary.duplicated(kept).any())
    given = f"--across {','.join(across)}: " if across else ""
    raise ResultsError(f"{given}{alike.folder}: several of its combinations share all other key columns")


def _nearest(a: StudySide, b: StudySide, keys: list[str]) -> str:
    """What keeps combinations apart: the columns that have no value in both."""
    apart = {key: (set(a.summary[key]), set(b.summary[key])) for key in keys}
    disjoint = [key for key, (ours, theirs) in apart.items() if not ours & theirs]
    if not disjoint:
        return ""
    said = f" ({'; '.join(f'{key}: {_some(a.summary[key])} and {_some(b.summary[key])}' for key in disjoint)})"
    rest = [*(key for key in keys if key not in disjoint), *DERIVED]
    if any(side.summary.duplicated(rest).any() for side in (a, b)):
        return said
    return f"{said}; --across {','.join(disjoint)} compares them all the same"


def _some(values: pd.Series, most: int = 3) -> str:
    known = [str(value) for value in dict.fromkeys(values)]
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")


def _values(summary: pd.DataFrame, of: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Metric -> `[count, 3]` values with their ends, NaN where the study lacks the combination."""
    values = {}
    for metric in METRICS:
        values[metric] = np.full((count, 3), np.nan)
        values[metric][of] = summary[[f"{metric}{end}" for end in ENDS]].to_numpy(float)
    return values


class _Paired(NamedTuple):
    """Of combinations `[n]`: both values over the prompts that both studies have, and their difference, `[n, 3]`."""

    places: np.ndarray
    a: np.ndarray
    b: np.ndarray
    difference: np.ndarray
    prompts: np.ndarray


def _paired(
    sides: list[StudySide], keys: list[str], names: pd.DataFrame, depths: np.ndarray, shared: list[str]
) -> dict[str, _Paired]:
    """Metric -> what is paired; nothing where records are missing, or too few prompts are shared."""
    tables = [side.records for side in sides if side.records is not None]
    if len(tables) < len(sides) or len(shared) < FEWEST_PROMPTS:
        return {}
    kept = [table[table["prompt_id"].isin(shared)].assign(side=number) for number, table in enumerate(tables)]
    records = pd.concat([names.assign(side=-1), *kept], ignore_index=True)
    combinations = group_numbers(records, keys)[len(names) :]
    records = records.iloc[len(names) :].reset_index(drop=True)
    there = combinations < len(names)  # rows whose combination the summaries do not hold are passed over
    records, combinations = records[there].reset_index(drop=True), combinations[there]
    records["plain_s"] = records["speedup"] * records["wall_s"]
    groups = combinations * 2 + records["side"].to_numpy(int)
    found: dict[str, list[_Paired]] = {metric: [] for metric in METRICS}
    for alike in prompt_sums(records, groups, TERMS):
        place = {int(group): index for index, group in enumerate(alike.groups)}
        both = [(place[group], place[group + 1]) for group in place if group % 2 == 0 and group + 1 in place]
        if not both:
            continue
        first, second = np.array(both).T
        of = alike.groups[first] // 2
        for metric in METRICS:
            ratios = ratios_of_sums(*alike.terms_of(metric))
            deep = depths[alike.groups // 2]
            limits = bounds(ratios, alike.categories, ends(metric, deep))
            values = np.column_stack([ratios.estimates, limits])
            differences = paired_differences(alike, metric, deep, second, first)
            stacked = np.column_stack([differences[name] for name in NUMBERS])
            prompts = np.full(len(of), len(alike.categories))
            found[metric].append(_Paired(of, values[first], values[second], stacked, prompts))
    return {
        metric: _Paired(*(np.concatenate(parts) for parts in zip(*several, strict=True)))
        for metric, several in found.items()
        if several
    }


def _of_metric(names: pd.DataFrame, metric: str, values: list[np.ndarray], paired: _Paired | None) -> pd.DataFrame:
    """The rows of one metric: of combinations that have it in either study."""
    a, b = values
    difference = np.column_stack([b[:, 0] - a[:, 0], independent_ends(a, b)])
    how = np.where(np.isnan(difference[:, 0]), "", UNPAIRED).astype(object)
    prompts = np.full(len(names), np.nan)
    if paired is not None:
        known = ~np.isnan(paired.difference[:, 0])
        places = paired.places[known]
        a[places], b[places], difference[places] = paired.a[known], paired.b[known], paired.difference[known]
        how[places], prompts[places] = PAIRED, paired.prompts[known]
    columns = dict(zip([*VALUES, *NUMBERS], np.column_stack([a, b, difference]).T, strict=True))
    table = names.assign(
        metric=metric, **columns, how=how, prompts_compared=prompts, verdict=_verdicts(a, b, difference)
    )
    return table[table["verdict"] != ""]


def _verdicts(a: np.ndarray, b: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """`[n]` in words; empty where neither study has a value."""
    has_a, has_b, low, high = ~np.isnan(a[:, 0]), ~np.isnan(b[:, 0]), difference[:, 1], difference[:, 2]
    both = has_a & has_b
    cases = [~has_a & has_b, has_a & ~has_b, both & (low > 0), both & (high < 0), both & (low <= 0) & (high >= 0), both]
    verdicts: np.ndarray = np.select(cases, [NEW, GONE, BETTER, WORSE, NOISE, UNKNOWN], "")
    return verdicts


def _notes(found: SideBySide, a: StudySide, b: StudySide, shared: list[str]) -> Iterator[str]:
    rated = found.rows[found.rows["how"] != ""]
    paired = bool((rated["how"] == PAIRED).any())
    counts = len(a.digests), len(b.digests)
    if paired and max(counts) > len(shared):
        yield (
            f"compared on the {len(shared)} prompts that both have (of {counts[0]} and {counts[1]}): values are of "
            "these, not of all"
        )
    if bool((rated["how"] == UNPAIRED).any()):
        lacking = [str(side.folder) for side in (a, b) if side.records is None]
        why = (
            f"{' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no records.csv"
            if lacking
            else f"both have {len(shared)} prompts in common"
            if len(shared) < FEWEST_PROMPTS
            else "not every combination has them"
        )
        some = "some differences are" if paired else "differences are"
        yield f"{some} not paired over prompts ({why}): their intervals are wider than they could be"
    if found.rows["metric"].isin(TIMED).any():
        yield (
            "intervals of times are over prompts only: what the machine did meanwhile is not in them, so a difference "
            "between two runs may be its"
        )
