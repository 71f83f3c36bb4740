"""What replay needs of each rule along a sampled trajectory: numbers, not distributions.

The full distributions of target and drafter exist for a slice of one batch at a time; what is kept is a few numbers
per position, from which every tree and budget is replayed, of the rules that a study asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specdraft.acceptance import AcceptanceRule
from specdraft.acceptance.base import Arrays
from specdraft.drafters.base import Drafter, RecordedText
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.sampling.randomness import NoSource, at_quantile

if TYPE_CHECKING:
    import torch

    from specdraft.models.language_model import LanguageModel
    from specdraft.trees.topology import Topology

MOST_ENTRIES = 2**23  # positions x vocabulary of the distributions that are worked on at a time

# Of one trajectory with one drafter: arrays of `record_arrays`, `[T + 1]` by position and `[T + 1, K]` by child of
# one node; position 0 is the prefill's token, which no rule judges: all 0. By node `[T + 1, n + 1]` with a root there.
RuleRecords = dict[str, np.ndarray]


class Part(NamedTuple):
    """What is kept of one rule, or, without one, the overlap, `sum min(target_probs, draft_probs)`.

    Attributes:
        rule: which one.
        drawn: what the drafter's distributions are standardised with.
    """

    rule: AcceptanceRule | None = None
    drawn: Drawn = AS_TARGET

    @property
    def name(self) -> str:
        """What it is called among all parts."""
        kind = self.rule.kind if self.rule else "overlap"
        return f"{kind}@{self.drawn.label}" if self.drawn.temperatures else kind

    @property
    def arrays(self) -> Arrays:
        """What it keeps, under the names that it has among what all parts keep."""
        if self.rule is None:
            return {self.name: "position"}
        return {self.array(array): per for array, per in self.rule.arrays.items()}

    @property
    def by_node(self) -> bool:
        """Whether it is of the nodes of trees (see `by_node`)."""
        return self.rule is not None and by_node(self.rule)

    def array(self, array: str) -> str:
        """What an array of its rule is called there."""
        return f"{self.name}.{array}"


def parts_of(rule: AcceptanceRule | None, drawn: Drawn = AS_TARGET) -> list[Part]:
    """What replay needs of a rule, or of the overlap, where children are drawn so: a part for each depth at which that
    is something else, the last for all below.

    Numbers by node are of whole paths, and the overlap is that of the root's children: these are one part.
    """
    whole = Part(rule, drawn)
    if whole.by_node:
        return [whole]
    levels = [Part(rule, level) for level in drawn.levels]
    return levels if rule is not None else levels[:1]


def record_rules(
    target: LanguageModel,
    drafter: Drafter,
    texts: Sequence[RecordedText],
    sampling: Sampling,
    parts: Sequence[Part],
    children: int,
    generators: Sequence[torch.Generator],
    tree: Topology | None = None,
) -> list[RuleRecords]:
    """Both models, teacher-forced over a batch of texts, slice by slice.

    Args:
        target, drafter: the pair.
        texts: one batch.
        sampling: the setting that the texts were sampled with; both models' distributions are standardised
            with it, the drafter's as each part says.
        parts: what is recorded.
        children: K, the most children of one node.
        generators: one for each text: the histories of rules that draw without replacement.
        tree: of rules that keep numbers by node: it has all nodes of the trees that are asked for.
    """
    import torch

    from specdraft.models.batch import along
    from specdraft.models.language_model import padded

    temperatures = {t: None for part in parts for t in part.drawn.temperatures or (sampling.temperature,)}
    at_once = max(1, MOST_ENTRIES // (target.width * len(texts) * len(temperatures)))
    tokens = padded([text.tokens.tolist() for text in texts], target.device)  # [B, longest]
    uniforms = _uniforms(children - 1, [len(text.tokens) for text in texts], generators)
    followers = [(part, part.rule.follow(tree, *tokens.shape)) for part in parts if part.rule and tree and part.by_node]
    parts = [part for part in parts if not part.by_node]
    slices, first = [_no_record(parts, len(texts), children)], 1
    with torch.inference_mode():
        forwards = along(target, [text.prompt_ids for text in texts], [text.tokens for text in texts], at_once)
        both = zip(forwards, drafter.logits_along(texts, at_once), strict=True)
        next(both)  # the prefill's token
        for of_target, of_draft in both:
            here = slice(first, first + of_target.shape[1])
            target_probs = standardise(of_target.double(), sampling)
            logits = of_draft.to(target.device).double()
            laws = {t: standardise(logits, replace(sampling, temperature=t)) for t in temperatures}

            def drawn_from(part: Part, depth: int, laws: dict[float, torch.Tensor] = laws) -> torch.Tensor:
                return laws[part.drawn.at(depth, sampling).temperature]

            of_parts = [(part, drawn_from(part, 1)) for part in parts]
            slices.append(_of_slice(target_probs, of_parts, tokens[:, here], uniforms[:, :, here]))
            for part, follower in followers:
                follower.take(first, target_probs, partial(drawn_from, part), tokens[:, here])
            first = here.stop
    whole = {name: np.concatenate([one[name] for one in slices], 1) for name in slices[0]}
    for part, follower in followers:
        assert tree is not None
        for name, array in follower.record().items():
            whole[part.array(name)] = _up_to_the_end(array.cpu().numpy(), tree, texts)
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


def _no_record(parts: Sequence[Part], texts: int, children: int) -> RuleRecords:
    """Of one position of each text that no rule judges."""
    shapes = {"position": (texts, 1), "child": (texts, 1, children)}
    return {name: np.zeros(shapes[per]) for part in parts for name, per in part.arrays.items()}


def _of_slice(
    target_probs: torch.Tensor,
    parts: Sequence[tuple[Part, torch.Tensor]],
    tokens: torch.Tensor,
    uniforms: torch.Tensor,
) -> RuleRecords:
    """Of some positions of all texts: distributions `[B, m, vocab]`, the drafter's beside each part, tokens `[B, m]`,
    random numbers `[K - 1, B, m]`, which each rule draws by alike."""
    import torch

    target, count, arrays = target_probs.flatten(0, 1), len(uniforms) + 1, dict[str, torch.Tensor]()
    for part, draft_probs in parts:
        draft = draft_probs.flatten(0, 1)
        if part.rule is None:
            arrays[part.name] = torch.minimum(target, draft).sum(-1)
            continue
        record = part.rule.record(target, draft, tokens.flatten(), count, _History(uniforms.flatten(1)))
        arrays |= {part.array(array): record[array] for array in part.rule.arrays}
    return {name: array.view(*tokens.shape, *array.shape[1:]).cpu().numpy() for name, array in arrays.items()}
