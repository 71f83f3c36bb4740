"""What replay needs of each rule along a sampled trajectory: numbers, not distributions.

The full distributions of target and drafter exist for a slice of one batch at a time; what is kept is a few numbers
per position, from which every tree and budget is replayed, of the rules that a study asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from specdraft.acceptance import AcceptanceRule
from specdraft.acceptance.base import Arrays
from specdraft.drafters.base import Drafter, RecordedText
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.randomness import NoSource, at_quantile

if TYPE_CHECKING:
    import torch

    from specdraft.models.language_model import LanguageModel
    from specdraft.trees.topology import Topology

MOST_ENTRIES = 2**23  # positions x vocabulary of the distributions that are worked on at a time

# Of one trajectory with one drafter: arrays of `record_arrays`, `[T + 1]` by position and `[T + 1, K]` by child of
# one node; position 0 is the prefill's token, which no rule judges: all 0. By node `[T + 1, n + 1]` with a root there.
RuleRecords = dict[str, np.ndarray]
OVERLAP: Arrays = {"overlap": "position"}


def record_arrays(rules: Iterable[AcceptanceRule]) -> Arrays:
    """`overlap`, which is `sum min(target_probs, draft_probs)`, and `KIND.ARRAY` of each of the rules."""
    return {**OVERLAP, **{name: per for rule in rules for name, per in rule_arrays(rule).items()}}


def rule_arrays(rule: AcceptanceRule) -> Arrays:
    """What a rule keeps, under the names that it has among what all rules keep."""
    return {array_name(rule, array): per for array, per in rule.arrays.items()}


def array_name(rule: AcceptanceRule, array: str) -> str:
    """What an array of a rule is called among those of all rules."""
    return f"{rule.kind}.{array}"


def record_rules(
    target: LanguageModel,
    drafter: Drafter,
    texts: Sequence[RecordedText],
    sampling: Sampling,
    rules: Sequence[AcceptanceRule],
    children: int,
    generators: Sequence[torch.Generator],
    tree: Topology | None = None,
) -> list[RuleRecords]:
    """Both models, teacher-forced over a batch of texts, slice by slice.

    Args:
        target, drafter: the pair.
        texts: one batch.
        sampling: the setting that the texts were sampled with; both models' distributions are standardised
            with it.
        rules: what is recorded is what these rules keep, and the overlap.
        children: K, the most children of one node.
        generators: one for each text: the histories of rules that draw without replacement.
        tree: of rules that keep numbers by node: it has all nodes of the trees that are asked for.
    """
    import torch

    from specdraft.models.batch import along
    from specdraft.models.language_model import padded

    at_once = max(1, MOST_ENTRIES // (target.width * len(texts)))
    tokens = padded([text.tokens.tolist() for text in texts], target.device)  # [B, longest]
    uniforms = _uniforms(children - 1, [len(text.tokens) for text in texts], generators)
    followers = {rule.kind: rule.follow(tree, *tokens.shape) for rule in rules if tree is not None and by_node(rule)}
    rules = [rule for rule in rules if not by_node(rule)]
    parts, first = [_no_record(rules, len(texts), children)], 1
    with torch.inference_mode():
        forwards = along(target, [text.prompt_ids for text in texts], [text.tokens for text in texts], at_once)
        both = zip(forwards, drafter.logits_along(texts, at_once), strict=True)
        next(both)  # the prefill's token
        for of_target, of_draft in both:
            here = slice(first, first + of_target.shape[1])
            probs = [standardise(logits.to(target.device).double(), sampling) for logits in (of_target, of_draft)]
            parts.append(_of_slice(probs[0], probs[1], tokens[:, here], uniforms[:, :, here], rules))
            for follower in followers.values():
                follower.take(first, probs[0], probs[1], tokens[:, here])
            first = here.stop
    whole = {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}
    for kind, follower in followers.items():
        assert tree is not None
        for name, array in follower.record().items():
            whole[f"{kind}.{name}"] = _up_to_the_end(array.cpu().numpy(), tree, texts)
    return [{name: array[row, : len(text.tokens)] for name, array in whole.items()} for row, text in enumerate(texts)]


def by_node(rule: AcceptanceRule) -> bool:
    """Whether what a rule keeps is of the nodes of trees, so that it depends on which trees are asked for."""
    return "node" in rule.arrays.values()


def _up_to_the_end(array: np.ndarray, tree: Topology, texts: Sequence[RecordedText]) -> np.ndarray:
    """`[B, S, n + 1]` with 0 where a node would lie beyond the end of its text."""
    last = np.array([len(text.tokens) - 1 for text in texts])
    there = np.arange(array.shape[1])[:, None] + tree.depths <= last[:, None, None]
    kept: np.ndarray = np.where(there, array, 0.0)
    return kept


def _uniforms(count: int, lengths: Sequence[int], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """`[count, B, longest]` random numbers, each text's from its own generator."""
    import torch

    uniforms = torch.zeros(count, len(lengths), max(lengths), dtype=torch.float64)
    for row, (length, generator) in enumerate(zip(lengths, generators, strict=True)):
        uniforms[:, row, :length] = torch.rand(count, length, generator=generator, dtype=torch.float64)
    return uniforms


class _History(NoSource):
    """Draws by given random numbers `[K - 1, m]`: neither K nor the slice that a position is in changes its history."""

    def __init__(self, uniforms: torch.Tensor) -> None:
        self._left = iter(uniforms)

    def choose(self, weights: torch.Tensor) -> torch.Tensor:
        return at_quantile(weights, next(self._left)[:, None])


def _no_record(rules: Sequence[AcceptanceRule], texts: int, children: int) -> RuleRecords:
    """Of one position of each text that no rule judges."""
    shapes = {"position": (texts, 1), "child": (texts, 1, children)}
    return {name: np.zeros(shapes[per]) for name, per in record_arrays(rules).items()}


def _of_slice(
    target_probs: torch.Tensor,
    draft_probs: torch.Tensor,
    tokens: torch.Tensor,
    uniforms: torch.Tensor,
    rules: Sequence[AcceptanceRule],
) -> RuleRecords:
    """Of some positions of all texts: distributions `[B, m, vocab]`, tokens `[B, m]`, random numbers `[K - 1, B, m]`,
    which each rule draws by alike."""
    import torch

    target, draft, count = target_probs.flatten(0, 1), draft_probs.flatten(0, 1), len(uniforms) + 1
    arrays = {"overlap": torch.minimum(target, draft).sum(-1)}
    for rule in rules:
        history = _History(uniforms.flatten(1))
        record = rule.record(target, draft, tokens.flatten(), count, history)
        arrays |= {array_name(rule, array): record[array] for array in rule.arrays}
    return {name: array.view(*tokens.shape, *array.shape[1:]).cpu().numpy() for name, array in arrays.items()}
