"""Paired comparisons of trees: the same prompts, the same trajectories, the difference of their ratios.

Two trees' intervals may overlap although one is better on nearly every prompt: what differs between
prompts cancels in the difference.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from specdraft.metrics import RATIOS
from specdraft.results import FEWEST_TO_RESAMPLE, Resampler

METRICS = ("acceptance_rate", "acceptance_length", "block_efficiency")
GROUP_KEYS = ["pair", "budget", "acceptance", "temperature", "top_k", "top_p", "max_new_tokens", "engine"]
COLUMNS = [*GROUP_KEYS, "tree_a", "tree_b", "metric", "difference", "difference_lo", "difference_hi"]


def comparisons(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row per two trees at one budget and metric: `tree_a` minus `tree_b`, with its 95 % interval.

    Args:
        records: one row per combination, prompt and repeat (see `results.records_table`).
        seed: of the resampling; the same as the summary's.
    """
    resampler, rows = Resampler(seed), []
    terms = sorted({term for metric in METRICS for term in (*RATIOS[metric][0], RATIOS[metric][1])})
    for values, group in records.groupby(GROUP_KEYS, sort=False, dropna=False):
        keys = dict(zip(GROUP_KEYS, values, strict=True))
        sums = group.groupby(["tree", "category", "prompt_id"], sort=False)[terms].sum()
        rows += [keys | row for row in _compare(sums, resampler)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _compare(sums: pd.DataFrame, resampler: Resampler) -> list[dict[str, Any]]:
    """All pairs of the trees that ran on the same prompts."""
    trees = list(dict.fromkeys(sums.index.get_level_values("tree")))
    by_tree: dict[str, pd.DataFrame] = {tree: pd.DataFrame(sums.xs(tree, level="tree")) for tree in trees}
    rows = []
    for metric in METRICS:
        above, below = RATIOS[metric]
        for a, b in combinations(trees, 2):
            first, second = by_tree[a], by_tree[b].reindex(by_tree[a].index)
            if len(by_tree[b]) != len(first) or second[below].isna().any():
                continue
            numerators = np.stack([one[list(above)].to_numpy(float).sum(1) for one in (first, second)])
            denominators = np.stack([one[below].to_numpy(float) for one in (first, second)])
            codes = first.index.get_level_values("category").astype("category").codes  # type: ignore[attr-defined]
            found = difference(numerators, denominators, codes, resampler)
            rows.append({"tree_a": a, "tree_b": b, "metric": metric} | dict(zip(COLUMNS[-3:], found, strict=True)))
    return rows


def difference(above: np.ndarray, below: np.ndarray, codes: np.ndarray, resampler: Resampler) -> tuple[float, float, float]:
    """First ratio of sums minus the second one, and its 95 % interval; empty where a ratio is.

    Args:
        above, below: `[2, P]` numerators and denominators per prompt, paired.
        codes: `[P]` each prompt's category.
        resampler: makes the bootstrap weights.
    """
    if (below.sum(1) <= 0).any():
        return np.nan, np.nan, np.nan
    ratios = above.sum(1) / below.sum(1)
    estimate, count = float(ratios[0] - ratios[1]), above.shape[1]
    if count < 2:
        return estimate, np.nan, np.nan
    if int(np.bincount(codes).min()) >= FEWEST_TO_RESAMPLE:
        weights = resampler.weights(np.asarray(codes))
        totals = weights @ below.T
        some = (totals > 0).all(1)
        resampled = (weights @ above.T)[some] / totals[some]
        low, high = np.quantile(resampled[:, 0] - resampled[:, 1], [0.025, 0.975])
        return estimate, float(low), float(high)
    influence = (above - ratios[:, None] * below) / below.sum(1, keepdims=True)
    spread = float(np.sqrt(count / (count - 1) * np.sum((influence[0] - influence[1]) ** 2)))
    reach = float(stats.t.ppf(0.975, count - 1)) * spread
    return estimate, estimate - reach, estimate + reach
