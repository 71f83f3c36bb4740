"""Paired comparisons of trees: the same prompts, the same trajectories, the difference of their ratios.

Two trees' intervals may overlap although one is better on nearly every prompt: what differs between
prompts cancels in the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from specdraft.results.bounds import blocks, bounds_of_differences, ratios_of_sums
from specdraft.results.metrics import RATIOS
from specdraft.results.prompt_sums import PromptSums, gathered, group_numbers, prompt_sums
from specdraft.results.summary import ends
from specdraft.results.tables import COMBINATION_KEYS
from specdraft.trees.shapes import is_named, is_sized

METRICS = ("acceptance_rate", "acceptance_length", "block_efficiency")
TERMS = sorted({term for metric in METRICS for term in (*RATIOS[metric][0], RATIOS[metric][1])})
GROUP_KEYS = [key for key in COMBINATION_KEYS if key not in ("combination", "tree", "nodes", "depth")]
NUMBERS = ["difference", "difference_lo", "difference_hi"]
COLUMNS = [*GROUP_KEYS, "tree_a", "tree_b", "metric", *NUMBERS]
MOST_TREES = 24  # at one budget, of which every two are compared
EQUAL = 1e-5  # block efficiencies that differ by less, relative to the best, are the best of a kind together
WHICH = f"every two trees at one budget; of more than {MOST_TREES} only pairs with a chain or with the best of a kind"


def comparisons(records: pd.DataFrame) -> pd.DataFrame:
    """See `Comparisons`: of one table."""
    found = Comparisons()
    found.add(records)
    return found.table()


class Comparisons:
    """One row per two trees at one budget and metric: `tree_a` minus `tree_b`, with its 95 % interval.

    A tree that has a size of its own stands at the budget that it competes at. Of more than `MOST_TREES` trees at one
    budget only those pairs are there that have a chain in them, or the tree of the largest block efficiency of its
    kind: whoever leads stands beside every other, and rows grow with the trees, not with their square.
    """

    def __init__(self) -> None:
        self._rows = [pd.DataFrame(columns=[*GROUP_KEYS, "tree", "depth"])]
        self._sums: list[PromptSums] = []

    def add(self, records: pd.DataFrame) -> None:
        """Take a table of one row per combination, prompt and repeat (see `results.records_table`), which has all rows
        of its combinations; only their sums are kept."""
        keys, before = [*GROUP_KEYS, "tree"], sum(map(len, self._rows))
        groups = group_numbers(records, keys)
        _, first = np.unique(groups, return_index=True)
        depths = pd.Series(records["depth"].to_numpy(float)).groupby(groups).max().to_numpy()
        rows = records[keys].iloc[first].assign(depth=depths)
        self._rows.append(rows.astype({name: "str" for name in keys if rows[name].dtype == "category"}))
        self._sums += (replace(alike, groups=alike.groups + before) for alike in prompt_sums(records, groups, TERMS))

    def table(self) -> pd.DataFrame:
        """Of all that was taken."""
        return _compared(pd.concat([rows for rows in self._rows if len(rows)] or self._rows), self._sums)


def _compared(rows: pd.DataFrame, sums: Sequence[PromptSums]) -> pd.DataFrame:
    """See `Comparisons`.

    Args:
        rows: a tree in a setting each.
        sums: whose groups are the places of rows.
    """
    rows = rows.assign(budget=competing_budgets(rows, [key for key in GROUP_KEYS if key != "budget"]))
    settings, trees = group_numbers(rows, GROUP_KEYS), group_numbers(rows, [*GROUP_KEYS, "tree"])
    _, first = np.unique(trees, return_index=True)
    kinds = rows["tree"].astype(str).map(kind_of).to_numpy()
    depths = pd.Series(rows["depth"].to_numpy(float)).groupby(trees).max().to_numpy()
    tables = [pd.DataFrame(columns=COLUMNS)]
    for alike in gathered(replace(some, groups=trees[some.groups]) for some in sums):
        here = first[alike.groups]
        efficiency = ratios_of_sums(*alike.terms_of("block_efficiency")).estimates
        a, b = pairs_within(settings[here], stands_out(settings[here], kinds[here], efficiency))
        of, against = (first[alike.groups[places]] for places in (a, b))
        keys = rows[GROUP_KEYS].iloc[of].reset_index(drop=True)
        names = {f"tree_{side}": rows["tree"].iloc[those].to_numpy() for side, those in (("a", of), ("b", against))}
        for metric in METRICS:
            found = paired_differences(alike, metric, depths[alike.groups], a, b)
            order = {"setting": settings[of], "place_a": trees[of], "place_b": trees[against]}
            tables.append(keys.assign(**names, metric=metric, **found, **order))
    table = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    if len(table):
        number = table["metric"].map(METRICS.index)
        table = table.assign(number=number).sort_values(["setting", "number", "place_a", "place_b"], ignore_index=True)
    return table[COLUMNS]


def paired_differences(
    alike: PromptSums, metric: str, depths: np.ndarray, a: np.ndarray, b: np.ndarray
) -> dict[str, np.ndarray]:
    """Column -> `[pairs]` the difference of each two groups, at places `a` and `b` of `alike`, and its ends."""
    ratios, limits = ratios_of_sums(*alike.terms_of(metric)), ends(metric, depths)
    possible = np.stack([limits[a, 0] - limits[b, 1], limits[a, 1] - limits[b, 0]], 1)
    found = np.empty((len(a), 2))
    for rows in blocks(np.arange(len(a)), len(alike.categories)):
        sides = ratios.at(a[rows]), ratios.at(b[rows])
        found[rows] = bounds_of_differences(*sides, alike.categories, possible[rows])
    return dict(zip(NUMBERS, (ratios.estimates[a] - ratios.estimates[b], *found.T), strict=True))


def kind_of(tree: str) -> str:
    """The kind of a `tree` column's label; trees that someone named are all of one."""
    return "paths" if is_named(tree) else tree.partition("-")[0]


def stands_out(settings: np.ndarray, kinds: np.ndarray, efficiency: np.ndarray) -> np.ndarray:
    """`[n]` bool: the chains, and in each setting the best of each kind, by block efficiency."""
    best = pd.Series(efficiency).groupby([settings, kinds]).transform("max").to_numpy()
    chosen: np.ndarray = (kinds == "chain") | (efficiency >= best * (1 - EQUAL))
    return chosen


def pairs_within(settings: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of every two rows that share a setting, each pair once and in order; where more than `MOST_TREES` do,
    of those with a `chosen` row only."""
    members = pd.Series(np.arange(len(settings))).groupby(settings, sort=True).indices.values()
    listed = [np.asarray(places)[_pairs(len(places), chosen[places])] for places in members]
    first, second = np.concatenate(listed, axis=1) if listed else np.empty((2, 0), int)
    return first, second


def _pairs(count: int, chosen: np.ndarray) -> np.ndarray:
    """`[2, pairs]` of so many rows."""
    if count <= MOST_TREES:
        return np.stack(np.triu_indices(count, 1))
    one, other = (side.ravel() for side in np.meshgrid(np.flatnonzero(chosen), np.arange(count), indexing="ij"))
    once = (one != other) & ~(chosen[other] & (other < one))
    pairs = np.sort(np.stack([one, other])[:, once], axis=0)
    return pairs[:, np.lexsort(pairs[::-1])]


def competing_budgets(rows: pd.DataFrame, setting: list[str]) -> pd.Series[Any]:
    """The budget that each row's tree competes at: its own; for a tree that has a size of its own the nearest budget of
    the other trees in its setting (of two equally near ones the larger), where there is one.

    Args:
        rows: have `tree` and `budget`.
        setting: the columns that two trees must share to be compared.
    """
    tree_names, budgets = rows["tree"].astype(str).to_numpy(), rows["budget"].to_numpy()
    cells = pd.DataFrame({"setting": group_numbers(rows, setting), "tree": tree_names, "budget": budgets})
    numbers = group_numbers(cells, ["setting", "tree", "budget"])
    trees = cells.drop_duplicates(ignore_index=True)
    sized = _has_own_size(trees).to_numpy()
    free = {name: sorted(set(others), reverse=True) for name, others in trees[~sized].groupby("setting")["budget"]}
    competes = [
        min(free.get(group, [budget]), key=lambda other: abs(other - budget)) if own_size else budget
        for group, budget, own_size in zip(trees["setting"], trees["budget"], sized, strict=True)
    ]
    return pd.Series(np.asarray(competes, budgets.dtype)[numbers], rows.index)


def _has_own_size(trees: pd.DataFrame) -> pd.Series[bool]:
    """Whether each tree ignores the budget. A name that is no shape's is of one that someone wrote down,
    which stands at one budget."""
    named = trees["tree"].map(is_named).astype(bool)
    once = trees.groupby(["setting", "tree"])["budget"].transform("size") == 1
    return trees["tree"].map(is_sized).astype(bool) | (named & once)
