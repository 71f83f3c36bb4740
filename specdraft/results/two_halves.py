"""What is picked on one half of the prompts and measured on the other, each half in turn."""

from __future__ import annotations

import numpy as np

from specdraft.results.bounds import Ratios, ratios_of_sums

Pair = tuple[int, int]  # of the first half and of the second


def on_other_half(ratios: Ratios, half: np.ndarray) -> np.ndarray:
    """`[2, n]` each ratio on the prompts that are not in a half; on all of them where these are none.

    Args:
        ratios: n of them.
        half: `[P]` of each prompt, 0 or 1.
    """
    others = [half != one if (half != one).any() else half >= 0 for one in (0, 1)]
    return np.stack([ratios_of_sums(ratios.above[:, mask], ratios.below[:, mask]).estimates for mask in others])


def picked(scores: np.ndarray) -> Pair:
    """The place of the largest of `[2, n]` scores for each half, the first of equals; what is not known never is."""
    first, second = np.where(np.isnan(scores), -np.inf, scores).argmax(1).tolist()
    return first, second


def mixed(ratios: Ratios, pair: Pair, half: np.ndarray) -> Ratios:
    """One ratio: of each prompt what is picked for its half."""
    rows, prompts = np.array(pair)[half], np.arange(len(half))
    return ratios_of_sums(ratios.above[rows, prompts][None], ratios.below[rows, prompts][None])
