"""Lookup drafting: what followed the last few tokens before, in the prompt or in the text so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specdraft.drafters.base import (
    BY_RANK,
    Annotation,
    Described,
    DrafterSpec,
    DrafterTraits,
    Drawing,
    Expansion,
    GivenTrees,
    Prefilled,
    RecordedText,
    Target,
)
from specdraft.errors import ConfigError, did_you_mean
from specdraft.models.files import ModelFiles
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import NestedPlan, Plan

if TYPE_CHECKING:
    import torch

VARIANTS = ("hf",)


@dataclass
class Ngram(DrafterSpec):
    """Copy the span that followed the last tokens where they stood before (prompt lookup decoding, Saxena 2023).

    Attributes:
        variant: `hf`: as `transformers` looks up: the longest n-gram that has a match, its earliest match, cut before
            an end-of-sequence token.
        max_matching_ngram_size: the longest n-gram that is looked up.
        num_output_tokens: how many tokens are copied at most.
    """

    kind: str = "ngram"
    variant: str = "hf"
    max_matching_ngram_size: int = 2
    num_output_tokens: int = 10

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`."""
        return DrafterTraits(
            probabilities=False, draws=False, deepest=self.num_output_tokens, by_offset=True, owns_weights=False
        )

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        if self.variant not in VARIANTS:
            raise ConfigError(f"drafter.variant={self.variant!r} is not known{did_you_mean(self.variant, VARIANTS)}")
        for name in ("max_matching_ngram_size", "num_output_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"drafter.{name}={getattr(self, name)} is out of range; expected 1 or more")

    def load(self, weights: ModelFiles | None, target: Target) -> NgramDrafter:
        """See `DrafterSpec.load`: there is nothing to load."""
        return NgramDrafter(self, target.files.eos_ids)

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any]:
        """See `DrafterSpec.facts`."""
        return ngram_facts(self, target.eos_ids)


def ngram_facts(spec: Ngram, stops: frozenset[int]) -> dict[str, Any]:
    """See `Drafter.facts`."""
    return {"drafter": spec.as_dict(), "stops": sorted(stops)}


class Lookup:
    """A text, and where each of its n-grams ended first.

    Args:
        spec: how to look up.
        stops: copying ends before these tokens.
    """

    def __init__(self, spec: Ngram, stops: frozenset[int]) -> None:
        self._spec, self._stops = spec, stops
        self.tokens: list[int] = []
        self._ended: dict[tuple[int, ...], int] = {}  # n-gram -> tokens up to the end of its first occurrence

    def extend(self, tokens: Sequence[int]) -> None:
        """The text goes on."""
        for token in tokens:
            self.tokens.append(token)
            length = len(self.tokens)
            for size in range(1, min(self._spec.max_matching_ngram_size, length) + 1):
                self._ended.setdefault(tuple(self.tokens[-size:]), length)

    def span(self) -> list[int]:
        """What followed the earliest occurrence of the longest n-gram at the text's end that stood there before."""
        longest = min(self._spec.max_matching_ngram_size, len(self.tokens) - 1)
        for size in range(longest, 0, -1):
            start = self._ended[tuple(self.tokens[-size:])]
            if start < len(self.tokens):
                copied = self.tokens[start : start + self._spec.num_output_tokens]
                stop = next((i for i, token in enumerate(copied) if token in self._stops), len(copied))
                return copied[:stop]
        return []


class NgramDrafter:
    """Proposes one sequence, every token of it the only child of the one before; nothing where there is no match.

    Args:
        spec: how to look up.
        stops: the target's end-of-sequence tokens.
    """

    def __init__(self, spec: Ngram, stops: frozenset[int]) -> None:
        self._spec, self._stops = spec, stops
        self._prompt: list[int] = []

    @property
    def traits(self) -> DrafterTraits:
        """See `Drafter.traits`."""
        return self._spec.traits

    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`."""
        self._prompt = list(prompt.token_ids)
        self.rewind()

    def rewind(self) -> None:
        """See `Drafter.rewind`."""
        self._lookup = Lookup(self._spec, self._stops)
        self._lookup.extend(self._prompt)

    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`: of the plan's tree the nodes that the copied span reaches."""
        self._lookup.extend([root])
        span = self._lookup.span()
        if plan.topology is None:
            raise ConfigError(f"drafter={self._spec.kind} has no probabilities to choose the nodes of a tree by")
        kept = [0, *plan.topology.chain[: len(span)]]
        return DraftTree(plan.topology.part(kept), [root, *span[: len(kept) - 1]])

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`."""
        tokens = tree.token_list()
        self._lookup.extend([tokens[node] for node in accepted_nodes])

    def annotate(self, texts: Sequence[RecordedText]) -> list[Annotation]:
        """See `Drafter.annotate`: no model is needed."""
        return [self._annotation(text) for text in texts]

    def _annotation(self, text: RecordedText) -> Annotation:
        tokens, offsets = text.tokens.tolist(), self._spec.num_output_tokens
        ranks = np.full((len(tokens), offsets), -1, dtype=np.int32)
        offered = np.zeros((len(tokens), offsets), dtype=np.int32)
        lookup = Lookup(self._spec, self._stops)
        lookup.extend(text.prompt_ids)
        for root, token in enumerate(tokens):
            lookup.extend([token])
            span = lookup.span()
            offered[root, : len(span)] = 1
            for depth, (proposed, there) in enumerate(zip(span, tokens[root + 1 :], strict=False)):
                if proposed == there:
                    ranks[root + 1 + depth, depth] = 0
        nothing = np.zeros(len(tokens), dtype=np.float32)
        none = np.empty((len(tokens), 0))
        return Annotation(ranks, none.astype(np.int32), none.astype(np.float32), nothing, offered)

    def logits_along(self, texts: Sequence[RecordedText], at_once: int) -> Iterator[torch.Tensor]:
        """See `Drafter.logits_along`: there are none."""
        raise ConfigError(f"drafter={self._spec.kind} has no probabilities")

    def expand(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Expansion]:
        """See `Drafter.expand`: without probabilities there is nothing to choose nodes by."""
        raise ConfigError(f"drafter={self._spec.kind} has no probabilities")

    def describe_trees(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Described]:
        """See `expand`."""
        raise ConfigError(f"drafter={self._spec.kind} has no probabilities")

    def score(
        self, texts: Sequence[RecordedText], trees: Sequence[GivenTrees], temperature: float, featured: bool = False
    ) -> Iterator[Described]:
        """See `Drafter.score`: there is nothing to score by."""
        raise ConfigError(f"drafter={self._spec.kind} has no probabilities")

    def rehearse(self, parents: int) -> None:
        """See `Drafter.rehearse`: one look-up serves all levels."""
        self._lookup.span()

    def facts(self) -> dict[str, Any]:
        """See `Drafter.facts`."""
        return ngram_facts(self._spec, self._stops)

    def describe(self) -> dict[str, Any]:
        """See `Drafter.describe`."""
        return self._spec.as_dict()
