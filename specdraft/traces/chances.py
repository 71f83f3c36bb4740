"""How probable each rule would take each child along a sampled trajectory: numbers, not distributions.

The full distributions of target and drafter exist for one batch at a time; what is kept is a few numbers
per position, from which every tree and budget is replayed for every rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from specdraft.acceptance import Block, KSeq, Membership, NoReplacement, Recursive, Rejection
from specdraft.drafters.base import Drafter, RecordedText
from specdraft.models.language_model import LanguageModel
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import NoSource, at_quantile

MOST_ENTRIES = 2**23  # positions x vocabulary of the distributions that are worked on at a time


class Chances(NamedTuple):
    """Of one trajectory with one drafter; position 0 is the prefill's token, which no rule judges: all 0.

    `[T + 1, K]` is P(child i is accepted | the recorded token), for children 0 .. K - 1 of one node.

    Attributes:
        overlap: `[T + 1]` `sum min(target_probs, draft_probs)`.
        rejection, recursive, no_replacement, membership: `[T + 1, K]` (`rejection` has one child).
        ratio: `[T + 1]` draft over target probability of the recorded token, not clipped (block, k-seq).
        rho, beta: `[T + 1, K]` k-seq's, for a node with 1 .. K children.
    """

    overlap: np.ndarray
    rejection: np.ndarray
    recursive: np.ndarray
    no_replacement: np.ndarray
    membership: np.ndarray
    ratio: np.ndarray
    rho: np.ndarray
    beta: np.ndarray


@torch.inference_mode()
def chances(
    target: LanguageModel,
    drafter: Drafter,
    texts: Sequence[RecordedText],
    sampling: Sampling,
    children: int,
    generators: Sequence[torch.Generator],
) -> list[Chances]:
    """One teacher-forced forward of each model over a batch of texts.

    Args:
        target, drafter: the pair.
        texts: one batch.
        sampling: the setting that the texts were sampled with; both models' distributions are standardised
            with it.
        children: K, the most children of one node.
        generators: one for each text: the histories of the rule without replacement.
    """
    forwards = target.along([text.prompt_ids for text in texts], [text.tokens for text in texts])
    both = zip(forwards, drafter.logits_along(texts), strict=True)
    found = []
    for (forward, of_draft), text, generator in zip(both, texts, generators, strict=True):
        tokens = torch.from_numpy(text.tokens).to(target.device)
        found.append(_of_one(forward.logits, of_draft.to(target.device), tokens, sampling, children, generator))
    return found


class _History(NoSource):
    """Draws by given random numbers `[K - 1, m]`: neither K nor the slice that a position is in changes its history."""

    def __init__(self, uniforms: torch.Tensor) -> None:
        self._left = iter(uniforms)

    def choose(self, weights: torch.Tensor) -> torch.Tensor:
        return at_quantile(weights, next(self._left)[:, None])


def _of_one(
    of_target: torch.Tensor,
    of_draft: torch.Tensor,
    tokens: torch.Tensor,
    sampling: Sampling,
    children: int,
    generator: torch.Generator,
) -> Chances:
    """`[T + 1, vocab]` logits of both models before each of `tokens` `[T + 1]`."""
    parts = []
    uniforms = torch.rand(children - 1, len(tokens), generator=generator, dtype=torch.float64)
    for rows in _slices(1, len(tokens), of_target.shape[-1]):
        target_probs, draft_probs = (standardise(logits[rows].double(), sampling) for logits in (of_target, of_draft))
        own = (target_probs, draft_probs, tokens[rows])
        table = KSeq().table(*own, children)
        in_turn = (
            Rejection().pi(*own, 1),
            Recursive().pi(*own, children),
            NoReplacement().pi(*own, children, _History(uniforms[:, rows])),
        )
        overlap = torch.minimum(target_probs, draft_probs).sum(-1)
        parts.append([overlap, *in_turn, Membership().pi(*own, children), Block().ratio(*own), table.rho, table.beta])
    if not parts:
        shapes = [(0,), (0, 1), (0, children), (0, children), (0, children), (0,), (0, children), (0, children)]
        parts = [[torch.empty(shape, dtype=torch.float64) for shape in shapes]]
    joined = [torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True)]
    return Chances(
        *(np.concatenate([np.zeros_like(values[:1], shape=(1, *values.shape[1:])), values]) for values in joined)
    )


def _slices(first: int, last: int, vocab: int) -> Iterator[slice]:
    at_once = max(1, MOST_ENTRIES // vocab)
    for start in range(first, last, at_once):
        yield slice(start, min(start + at_once, last))
