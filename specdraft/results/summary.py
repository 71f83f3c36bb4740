"""Sums, ratios and their intervals per group of records."""

from __future__ import annotations

import numpy as np
import pandas as pd

from specdraft.results.bounds import bounds, bounds_of_differences, ratios_of_sums, with_error
from specdraft.results.metrics import (
    COSTS_SPREAD,
    COUNTS,
    HELPERS,
    LATENCIES,
    LATENCY,
    OVERHEAD,
    PERPLEXITY,
    PRUNED,
    RATIOS,
    TIMES,
    add_ratios,
    possible,
)
from specdraft.results.prompt_sums import group_numbers, prompt_sums

ENDS = ("lo", "hi")
SUMS = [*COUNTS, *PRUNED, *OVERHEAD, *TIMES]
OVER_PLAIN = "nll_over_plain"  # paired, prompt by prompt
LATER = ("nll", "plain_nll", PERPLEXITY, OVER_PLAIN, LATENCY, *LATENCIES)  # with their ends: earlier studies have none
RATIOS_WITH_ENDS = [
    name for ratio in (*RATIOS, PERPLEXITY, OVER_PLAIN) for name in (ratio, *(f"{ratio}_{end}" for end in ENDS))
]


def summarise(records: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Sums and ratios of sums per group of records, with 95 % intervals over prompts; quantiles of latencies.

    Args:
        records: one row per combination, prompt and repeat (see `results.records_table`).
        keys: the columns that a group's rows share.
    """
    terms = [*SUMS, *HELPERS]
    groups = group_numbers(records, keys)
    _, first = np.unique(groups, return_index=True)
    sums = records[terms].groupby(groups, sort=True).sum(min_count=1)
    table = add_ratios(pd.concat([records[keys].iloc[first].reset_index(drop=True), sums], axis=1))
    depths = table["depth"].to_numpy(float)
    limits = {ratio: np.full((len(table), 2), np.nan) for ratio in (*RATIOS, OVER_PLAIN)}
    for alike in prompt_sums(records, groups, terms):
        ratios = {ratio: ratios_of_sums(*alike.terms_of(ratio)) for ratio in RATIOS}
        for ratio, given in ratios.items():
            limits[ratio][alike.groups] = bounds(given, alike.categories, ends(ratio, depths[alike.groups]))
        paired = bounds_of_differences(ratios["nll"], ratios["plain_nll"], alike.categories)
        limits[OVER_PLAIN][alike.groups] = paired
    for ratio, spread in COSTS_SPREAD.items():
        share = (sums[spread] / sums["est_s"]).to_numpy(float)
        most = limits["block_efficiency"][:, 1] if ratio == "est_speedup" else None
        limits[ratio] = with_error(table[ratio].to_numpy(float), limits[ratio], share, most)
    limits[PERPLEXITY] = np.exp(limits["nll"])
    waited = records[LATENCY].astype(float).groupby(groups, sort=True)
    table = table.assign(**{name: waited.quantile(share).to_numpy(float) for name, share in LATENCIES.items()})
    table[OVER_PLAIN] = table["nll"] - table["plain_nll"]
    columns = {f"{ratio}_{end}": found[:, place] for ratio, found in limits.items() for place, end in enumerate(ENDS)}
    return pd.concat([table, pd.DataFrame(columns)], axis=1)[[*keys, *SUMS, *RATIOS_WITH_ENDS, *LATENCIES]]


def ends(ratio: str, depths: np.ndarray) -> np.ndarray:
    """`[n, 2]` the least and the most that a ratio can be with trees of these depths."""
    different, of = np.unique(depths, return_inverse=True)
    return np.array([possible(ratio, depth) for depth in different]).reshape(-1, 2)[of]
