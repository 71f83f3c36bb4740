"""Paired comparisons of trees: the same prompts, the same trajectories, the difference of their ratios.

Two trees' intervals may overlap although one is better on nearly every prompt: what differs between
prompts cancels in the difference.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from specdraft.results.intervals import FEWEST_TO_RESAMPLE, Resampler
from specdraft.results.metrics import RATIOS
from specdraft.results.tables import COMBINATION_KEYS

METRICS = ("acceptance_rate", "acceptance_length", "block_efficiency")
GROUP_KEYS = [key for key in COMBINATION_KEYS if key not in ("combination", "tree", "nodes", "depth")]
COLUMNS = [*GROUP_KEYS, "tree_a", "tree_b", "metric", "difference", "difference_lo", "difference_hi"]


class Ratio(NamedTuple):
    """A ratio of sums over prompts, and how it varies with them.

    Attributes:
        estimate: the ratio; NaN where the denominator is 0.
        samples: `[samples]` the ratio of each resampling of the prompts, or None with few prompts.
        influence: `[P]` how far each prompt moves the ratio (delta method).
    """

    estimate: float
    samples: np.ndarray | None
    influence: np.ndarray


def comparisons(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row per two trees at one budget and metric: `tree_a` minus `tree_b`, with its 95 % interval.

    Args:
        records: one row per combination, prompt and repeat (see `results.records_table`).
        seed: of the resampling; the same as the summary's.
    """
    resampler, rows = Resampler(seed), []
    terms = sorted({term for metric in METRICS for term in (*RATIOS[metric][0], RATIOS[metric][1])})
    for values, group in records.groupby(GROUP_KEYS, sort=False, dropna=False):
        sums = group.groupby(["tree", "category", "prompt_id"], sort=False)[terms].sum()
        trees = {tree: own.droplevel("tree").sort_index() for tree, own in sums.groupby("tree", sort=False)}
        for metric in METRICS:
            ratios = {tree: ratio(own, metric, resampler) for tree, own in trees.items()}
            for a, b in combinations(trees, 2):
                if trees[a].index.equals(trees[b].index):
                    rows.append((*values, a, b, metric, *difference(ratios[a], ratios[b])))
    return pd.DataFrame(rows, columns=COLUMNS)


def ratio(sums: pd.DataFrame, metric: str, resampler: Resampler) -> Ratio:
    """A metric over prompts: `sums` has a row per prompt, indexed by category and prompt id."""
    terms, denominator = RATIOS[metric]
    above, below = sums[list(terms)].to_numpy(float).sum(1), sums[denominator].to_numpy(float)
    if not below.sum() > 0:
        return Ratio(np.nan, None, np.zeros_like(above))
    estimate = float(above.sum() / below.sum())
    influence = (above - estimate * below) / below.sum()
    codes = pd.Categorical(sums.index.get_level_values("category")).codes
    if len(codes) < 2 or int(np.bincount(codes).min()) < FEWEST_TO_RESAMPLE:
        return Ratio(estimate, None, influence)
    weights = resampler.weights(np.asarray(codes))
    totals = weights @ below  # 0 where only prompts without a step were drawn
    samples = np.divide(weights @ above, totals, out=np.full_like(totals, np.nan), where=totals > 0)
    return Ratio(estimate, samples, influence)


def difference(first: Ratio, second: Ratio) -> tuple[float, float, float]:
    """First minus second and its 95 % interval: percentiles of paired resamplings, or the delta method with few
    prompts."""
    estimate, count = first.estimate - second.estimate, len(first.influence)
    if np.isnan(estimate) or count < 2:
        return estimate, np.nan, np.nan
    if first.samples is not None and second.samples is not None:
        low, high = np.nanquantile(first.samples - second.samples, [0.025, 0.975])
        return estimate, float(low), float(high)
    spread = float(np.sqrt(count / (count - 1) * np.sum((first.influence - second.influence) ** 2)))
    reach = float(stats.t.ppf(0.975, count - 1)) * spread
    return estimate, estimate - reach, estimate + reach
