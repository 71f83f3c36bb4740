"""Halves of the prompts: what is fitted on one half is scored on the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from specdraft.prompts import Prompt, turn_of_name
from specdraft.trees.shapes.fitted import FOLDS

__all__ = ["FOLDS", "folds", "halves"]


def halves(prompts: Iterable[Prompt], seed: int) -> np.ndarray:
    """`[P]` the fold of each prompt (see `folds`); all turns of a prompt are in one."""
    ids, categories = [], dict[str, str]()
    for prompt in prompts:
        ids.append(turn_of_name(prompt.prompt_id).prompt_id)
        categories.setdefault(ids[-1], prompt.category)
    of_prompt = dict(zip(categories, folds([*categories.values()], seed), strict=True))
    return np.array([of_prompt[name] for name in ids], dtype=np.int64)


def folds(categories: Sequence[str], seed: int) -> np.ndarray:
    """`[P]` the fold of each prompt: halves of every category, drawn at random."""
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(categories), dtype=np.int64)
    offset = 0
    for category in dict.fromkeys(categories):
        members = np.array([i for i, c in enumerate(categories) if c == category])
        fold[rng.permutation(members)] = (np.arange(len(members)) + offset) % FOLDS
        offset += len(members)  # odd categories do not all favour one fold
    return fold
