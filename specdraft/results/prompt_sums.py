"""Records as arrays: sums over repeats, a row a group and a column a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from specdraft.results.metrics import RATIOS


@dataclass(frozen=True)
class PromptSums:
    """Groups of records that have the same prompts.

    Attributes:
        groups: `[n]` their numbers.
        categories: `[P]` each prompt's, as a number.
        sums: term -> `[n, P]`; NaN where there is none.
    """

    groups: np.ndarray
    categories: np.ndarray
    sums: dict[str, np.ndarray]

    def terms_of(self, ratio: str) -> tuple[np.ndarray, np.ndarray]:
        """`[n, P]` numerators and denominators of a ratio."""
        terms, denominator = RATIOS[ratio]
        return np.sum([np.nan_to_num(self.sums[term]) for term in terms], axis=0), self.sums[denominator]


def group_numbers(records: pd.DataFrame, keys: list[str]) -> np.ndarray:
    """`[rows]` the number of each row's group, in the order in which they appear."""
    numbers = np.zeros(len(records), dtype=np.int64)
    for key in keys:
        codes, values = pd.factorize(records[key], use_na_sentinel=False)
        if len(values) > 1:
            numbers, _ = pd.factorize(numbers * len(values) + codes)
    return numbers


def prompt_sums(records: pd.DataFrame, groups: np.ndarray, terms: list[str]) -> Iterator[PromptSums]:
    """Sums by group and prompt; prompts are in the order of category and id, whatever that of the rows.

    Args:
        records: have `category`, `prompt_id` and the terms.
        groups: `[rows]` see `group_numbers`.
        terms: the columns to sum.
    """
    categories, _ = pd.factorize(records["category"], sort=True)
    ids, names = pd.factorize(records["prompt_id"], sort=True)
    prompts = categories.astype(np.int64) * len(names) + ids
    sums = records[terms].astype(float).groupby([groups, prompts], sort=True).sum(min_count=1)
    numbers, prompts = (sums.index.get_level_values(level).to_numpy() for level in range(2))
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    alike: dict[bytes, list[int]] = {}
    for start, end in pairwise([*starts, len(numbers)]):
        alike.setdefault(prompts[start:end].tobytes(), []).append(start)
    values = {term: sums[term].to_numpy() for term in terms}
    for prompt_set, first in alike.items():
        members = np.frombuffer(prompt_set, dtype=prompts.dtype)
        cells = np.asarray(first)[:, None] + np.arange(len(members))
        yield PromptSums(numbers[first], members // len(names), {term: values[term][cells] for term in terms})
