"""Record a target's trajectories: its own continuations of prompts, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from specdraft.decoding.decode import Ending
from specdraft.models.language_model import LanguageModel
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import at_quantile

GREEDY = Sampling()


class Trajectory(NamedTuple):
    """A target's continuation of a prompt.

    Attributes:
        tokens: `[T + 1]` int64; position 0 is the prefill's token.
        gaps: `[T + 1]` float32, how far apart the target's two best logits were at each token.
    """

    tokens: np.ndarray
    gaps: np.ndarray


def record_trajectories(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    ending: Ending,
    sampling: Sampling = GREEDY,
    generators: Sequence[torch.Generator] = (),
    gained: Callable[[int], None] = lambda tokens: None,
) -> list[Trajectory]:
    """Continuations of a batch of prompts.

    Args:
        model: the target.
        prompts: token ids of each prompt; one batch.
        ending: when a continuation is over.
        sampling: how tokens are chosen.
        generators: one for each prompt, where tokens are sampled.
        gained: told after each forward how many tokens there are more; the first one is over the prompts.
    """
    batch = model.batch(prompts)
    tokens: list[list[int]] = [[] for _ in prompts]
    gaps: list[list[float]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    while True:
        best = batch.logits.topk(2).values
        chosen = batch.logits.argmax(-1) if sampling.greedy else _sample(batch.logits, sampling, generators)
        ids, differences = chosen.tolist(), (best[:, 0] - best[:, 1]).tolist()
        gained(len(going))
        for row in sorted(going):
            tokens[row].append(ids[row])
            gaps[row].append(differences[row])
            if ending.reached(len(tokens[row]), ids[row]):
                going.discard(row)
        if not going:
            arrays = zip(tokens, gaps, strict=True)
            return [Trajectory(np.array(t, dtype=np.int64), np.array(g, dtype=np.float32)) for t, g in arrays]
        batch.append(chosen)


def _sample(logits: torch.Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """`[B, vocab]` -> one token per row, each with its own generator: what a text is does not depend on its batch."""
    uniforms = torch.cat([torch.rand(1, 1, generator=generator, dtype=torch.float64) for generator in generators])
    return at_quantile(standardise(logits, sampling), uniforms)


def batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Runs of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
