"""Halves of the prompts: what is fitted on one half is scored on the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from specdraft.prompts import Prompt
from specdraft.trees.shapes.fitted import FOLDS

__all__ = ["FOLDS", "folds", "halves"]


def halves(prompts: Iterable[Prompt], seed: int) -> np.ndarray:
    """`[P]` the fold of each prompt (see `folds`)."""
    return folds([prompt.category for prompt in prompts], seed)


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
