"""Records as arrays: sums over repeats, a row a group and a column a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
        prompts: P pairs of category and id, in the order of both.
        categories: `[P]` each prompt's, as a number.
        sums: term -> `[n, P]`; NaN where there is none.
    """

    groups: np.ndarray
    prompts: tuple[tuple[str, str], ...]
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
    categories, kinds = pd.factorize(records["category"], sort=True)
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
        of_kind, of_name = np.divmod(members, len(names))
        named = tuple(zip(map(str, kinds[of_kind]), map(str, names[of_name]), strict=True))
        cells = np.asarray(first)[:, None] + np.arange(len(members))
        yield PromptSums(numbers[first], named, of_kind, {term: values[term][cells] for term in terms})


def gathered(parts: Iterable[PromptSums]) -> Iterator[PromptSums]:
    """Sums of groups that were told apart, all of the same prompts together; a group that is in several is summed."""
    alike: dict[tuple[tuple[str, str], ...], list[PromptSums]] = {}
    for part in parts:
        alike.setdefault(part.prompts, []).append(part)
    for prompts, of_prompts in alike.items():
        groups, place = np.unique(np.concatenate([part.groups for part in of_prompts]), return_inverse=True)
        sums = {}
        for term in of_prompts[0].sums:
            sums[term] = np.zeros((len(groups), len(prompts)))
            np.add.at(sums[term], place, np.concatenate([part.sums[term] for part in of_prompts]))
        categories = pd.factorize(np.array([category for category, _ in prompts], dtype=object))[0]
        yield PromptSums(groups, prompts, categories, sums)
