"""What replay needs of each rule along a sampled trajectory: numbers, not distributions.

The full distributions of target and drafter exist for one batch at a time; what is kept is a few numbers
per position, from which every tree and budget is replayed for every rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from specdraft.acceptance import AcceptanceRule, registry
from specdraft.acceptance.base import Arrays
from specdraft.drafters.base import Drafter, RecordedText
from specdraft.models.language_model import LanguageModel
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import NoSource, at_quantile

MOST_ENTRIES = 2**23  # positions x vocabulary of the distributions that are worked on at a time

# Of one trajectory with one drafter: the arrays of `record_arrays`, `[T + 1]` by position and `[T + 1, K]` by child of
# one node; position 0 is the prefill's token, which no rule judges: all 0.
RuleRecords = dict[str, np.ndarray]


def record_arrays() -> Arrays:
    """`overlap`, which is `sum min(target_probs, draft_probs)`, and `KIND.ARRAY` of every rule with a record."""
    arrays = {array_name(rule, array): per for rule in _rules() for array, per in rule.arrays.items()}
    return {"overlap": "position", **arrays}


def array_name(rule: AcceptanceRule, array: str) -> str:
    """What an array of a rule is called among those of all rules."""
    return f"{rule.kind}.{array}"


def _rules() -> list[AcceptanceRule]:
    return [rule() for rule in registry().values() if rule.replay == "record"]


@torch.inference_mode()
def record_rules(
    target: LanguageModel,
    drafter: Drafter,
    texts: Sequence[RecordedText],
    sampling: Sampling,
    children: int,
    generators: Sequence[torch.Generator],
) -> list[RuleRecords]:
    """One teacher-forced forward of each model over a batch of texts.

    Args:
        target, drafter: the pair.
        texts: one batch.
        sampling: the setting that the texts were sampled with; both models' distributions are standardised
            with it.
        children: K, the most children of one node.
        generators: one for each text: the histories of rules that draw without replacement.
    """
    forwards = target.along([text.prompt_ids for text in texts], [text.tokens for text in texts])
    both = zip(forwards, drafter.logits_along(texts), strict=True)
    records = []
    for (forward, of_draft), text, generator in zip(both, texts, generators, strict=True):
        tokens = torch.tensor(text.tokens, device=target.device)
        records.append(_of_one(forward.logits, of_draft.to(target.device), tokens, sampling, children, generator))
    return records


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
) -> RuleRecords:
    """`[T + 1, vocab]` logits of both models before each of `tokens` `[T + 1]`."""
    parts = [_no_record(children, tokens.device)]
    uniforms = torch.rand(children - 1, len(tokens), generator=generator, dtype=torch.float64)
    for rows in _slices(1, len(tokens), of_target.shape[-1]):
        target_probs, draft_probs = (standardise(logits[rows].double(), sampling) for logits in (of_target, of_draft))
        parts.append(_of_rows(target_probs, draft_probs, tokens[rows], uniforms[:, rows]))
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}


def _no_record(children: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Of one position that no rule judges."""
    shapes = {"position": (1,), "child": (1, children)}
    return {name: torch.zeros(shapes[per], dtype=torch.float64, device=device) for name, per in record_arrays().items()}


def _of_rows(
    target_probs: torch.Tensor, draft_probs: torch.Tensor, tokens: torch.Tensor, uniforms: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Of some positions: distributions `[m, vocab]`, tokens `[m]`, random numbers `[K - 1, m]` for each rule alike."""
    arrays = {"overlap": torch.minimum(target_probs, draft_probs).sum(-1)}
    for rule in _rules():
        record = rule.record(target_probs, draft_probs, tokens, len(uniforms) + 1, _History(uniforms))
        arrays |= {array_name(rule, array): record[array] for array in rule.arrays}
    return arrays


def _slices(first: int, last: int, vocab: int) -> Iterator[slice]:
    at_once = max(1, MOST_ENTRIES // vocab)
    for start in range(first, last, at_once):
        yield slice(start, min(start + at_once, last))
