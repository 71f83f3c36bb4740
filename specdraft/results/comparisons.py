"""Paired comparisons of trees: the same prompts, the same trajectories, the difference of their ratios.

Two trees' intervals may overlap although one is better on nearly every prompt: what differs between
prompts cancels in the difference.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from specdraft.results.intervals import Prompts, Ratio, Resampler, ratio_of_sums
from specdraft.results.metrics import RATIOS, possible
from specdraft.results.tables import COMBINATION_KEYS
from specdraft.trees.shapes import is_sized

METRICS = ("acceptance_rate", "acceptance_length", "block_efficiency")
GROUP_KEYS = [key for key in COMBINATION_KEYS if key not in ("combination", "tree", "nodes", "depth")]
COLUMNS = [*GROUP_KEYS, "tree_a", "tree_b", "metric", "difference", "difference_lo", "difference_hi"]


def comparisons(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row per two trees at one budget and metric: `tree_a` minus `tree_b`, with its 95 % interval.

    A tree that has a size of its own stands at the budget that it competes at.

    Args:
        records: one row per combination, prompt and repeat (see `results.records_table`).
        seed: of the resampling; the same as the summary's.
    """
    resampler, rows = Resampler(seed), []
    records = records.assign(budget=competing_budgets(records, [key for key in GROUP_KEYS if key != "budget"]))
    terms = sorted({term for metric in METRICS for term in (*RATIOS[metric][0], RATIOS[metric][1])})
    for values, group in records.groupby(GROUP_KEYS, sort=False, dropna=False):
        sums = group.groupby(["tree", "category", "prompt_id"], sort=False)[terms].sum()
        trees = {tree: prompts.droplevel("tree").sort_index() for tree, prompts in sums.groupby("tree", sort=False)}
        depths = group.groupby("tree")["depth"].max()
        over = {tree: Prompts(category_codes(prompts), resampler) for tree, prompts in trees.items()}
        for metric in METRICS:
            ratios = {tree: ratio(prompts, metric) for tree, prompts in trees.items()}
            ends = {tree: possible(metric, float(depths[tree])) for tree in trees}
            for a, b in combinations(trees, 2):
                if trees[a].index.equals(trees[b].index):
                    difference = ratios[a].estimate - ratios[b].estimate
                    limits = ends[a][0] - ends[b][1], ends[a][1] - ends[b][0]
                    bounds = over[a].interval_of_difference(ratios[a], ratios[b], limits)
                    rows.append((*values, a, b, metric, difference, *bounds))
    return pd.DataFrame(rows, columns=COLUMNS)


def competing_budgets(rows: pd.DataFrame, setting: list[str]) -> pd.Series[Any]:
    """The budget that each row's tree competes at: its own; for a tree that has a size of its own the nearest budget of
    the other trees in its setting (of two equally near ones the larger), where there is one.

    Args:
        rows: have `tree` and `budget`.
        setting: the columns that two trees must share to be compared.
    """
    budgets = rows["budget"].to_numpy().copy()
    sized = rows["tree"].map(is_sized).to_numpy(bool)
    groups = rows.groupby(setting, sort=False, dropna=False).indices.values() if sized.any() else ()
    for places in map(np.asarray, groups):
        free = sorted(set(budgets[places][~sized[places]]), reverse=True)
        for place in places[sized[places]] if free else ():
            budgets[place] = min(free, key=lambda budget: abs(budget - budgets[place]))
    return pd.Series(budgets, rows.index)


def ratio(sums: pd.DataFrame, metric: str) -> Ratio:
    """A metric over prompts: `sums` has a row per prompt."""
    terms, denominator = RATIOS[metric]
    return ratio_of_sums(sums[list(terms)].to_numpy(float).sum(1), sums[denominator].to_numpy(float))


def category_codes(sums: pd.DataFrame) -> np.ndarray:
    """`[P]` each prompt's category as a number; `sums` is indexed by category and prompt id."""
    return np.asarray(pd.Categorical(sums.index.get_level_values("category")).codes)
