"""The randomness of one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from specdraft.drafters.pair import Pair
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.randomness import seeded

if TYPE_CHECKING:
    import torch


def text_generator(pair: Pair, sampling: Sampling, prompt_ids: Sequence[int], draw: str, *more: str) -> torch.Generator:
    """The randomness of one sampled text: it depends on the target, the setting, the prompt and `draw` alone."""
    return seeded("text", draw, pair.files.target.weights_hash, sampling, list(prompt_ids), *more)
