"""Record a target's trajectories: its own continuations of prompts, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specdraft.decoding.ending import Ending
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import at_quantile

if TYPE_CHECKING:
    import torch

    from specdraft.models.language_model import LanguageModel

GREEDY = Sampling()


class Trajectory(NamedTuple):
    """A target's continuation of a prompt.

    Attributes:
        tokens: `[T + 1]` int64; position 0 is the prefill's token.
        gaps: `[T + 1]` float32, how far apart the target's two best logits were at each token.
    """

    tokens: np.ndarray
    gaps: np.ndarray


class Continued(NamedTuple):
    """A prompt of a batch whose continuation is over."""

    row: int
    trajectory: Trajectory


def record_trajectories(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    ending: Ending,
    sampling: Sampling = GREEDY,
    generators: Sequence[torch.Generator] = (),
    gained: Callable[[int], None] = lambda tokens: None,
) -> Iterator[Continued]:
    """Continuations of a batch of prompts, each as soon as it is over.

    Args:
        model: the target.
        prompts: token ids of each prompt; one batch.
        ending: when a continuation is over.
        sampling: how tokens are chosen.
        generators: one for each prompt, where tokens are sampled.
        gained: told after each forward how many tokens there are more; the first one is over the prompts.
    """
    import torch

    from specdraft.models.batch import Batch

    batch = Batch(model, prompts)
    logits, device = batch.logits, model.device
    tokens: list[list[int]] = [[] for _ in prompts]
    gaps: list[list[float]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    while True:
        best = logits.topk(2).values
        chosen = logits.argmax(-1) if sampling.greedy else _sample(logits, sampling, generators)
        ids, differences = chosen.tolist(), (best[:, 0] - best[:, 1]).tolist()
        gained(len(going))
        for row in sorted(going):
            tokens[row].append(ids[row])
            gaps[row].append(differences[row])
            if ending.reached(len(tokens[row]), ids[row]):
                going.discard(row)
                yield Continued(row, Trajectory(np.array(tokens[row]), np.array(gaps[row], dtype=np.float32)))
        if not going:
            return
        offset = torch.full((1, 1), batch.slots, device=device)
        everything = torch.ones(1, 1, batch.slots + 1, dtype=torch.bool, device=device)
        logits = batch.append(chosen[:, None], offset, everything)[:, 0]


def _sample(logits: torch.Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """`[B, vocab]` -> one token per row, each with its own generator: what a text is does not depend on its batch."""
    import torch

    uniforms = torch.cat([torch.rand(1, 1, generator=generator, dtype=torch.float64) for generator in generators])
    return at_quantile(standardise(logits, sampling), uniforms)
