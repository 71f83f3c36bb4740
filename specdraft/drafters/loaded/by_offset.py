"""Drafters whose proposals depend on the distance from the root: what is alike along recorded texts.

Letters: T starts of a text, O depths, m starts.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol, Self

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from specdraft.drafters.base import (
    BY_RANK,
    TOP_K,
    Annotation,
    Described,
    DrafterTraits,
    Drawing,
    Expansion,
    GivenTrees,
    Prefilled,
    RecordedText,
    RowOf,
)
from specdraft.drafters.loaded.model import Said
from specdraft.drafters.loaded.ranking import ranks_of
from specdraft.errors import ConfigError
from specdraft.models.batch import logits_at_once
from specdraft.models.cached_model import CachedModel
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import NestedPlan, Plan


class StartsOf(Protocol):
    """What is said at the starts of one text."""

    def __call__(self, first: int, last: int, count: int) -> torch.Tensor:
        """`[last - first, count, vocab]` float32 logits of depths 1 .. count, of roots at positions first .. last - 1
        of the text, below the tokens that follow them there."""


class Known(NamedTuple):
    """What a drafter is known by.

    Attributes:
        traits: see `Drafter.traits`.
        facts: see `Drafter.facts`.
        description: see `Drafter.describe`.
    """

    traits: DrafterTraits
    facts: dict[str, Any]
    description: dict[str, Any]


class OffsetDrafter(ABC):
    """See `Drafter`; how it proposes, and what it keeps of the text, is said by kinds of it.

    Args:
        target: whose states are read.
        known: what it is.
    """

    def __init__(self, target: CachedModel, known: Known) -> None:
        self._target, self._known = target, known

    @property
    def traits(self) -> DrafterTraits:
        """See `Drafter.traits`."""
        return self._known.traits

    @abstractmethod
    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`."""

    @abstractmethod
    def rewind(self) -> None:
        """See `Drafter.rewind`."""

    @abstractmethod
    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`."""

    @abstractmethod
    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`."""

    def another(self, row_of: RowOf) -> Self:
        """See `Drafter.another`: of the target it runs the layers only that have no cache."""
        return copy.copy(self)

    @abstractmethod
    def logits_along(self, texts: Sequence[RecordedText], at_once: int) -> Iterator[torch.Tensor]:
        """See `Drafter.logits_along`: the first offset's."""

    @abstractmethod
    def expand(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Expansion]:
        """See `Drafter.expand`."""

    @abstractmethod
    def _said_along(self, text: RecordedText) -> Iterator[tuple[int, int, torch.Tensor]]:
        """The first of m starts, an offset from 1, and `[m, vocab]` logits there; every offset at every start, of one
        offset in the order of the starts."""

    @abstractmethod
    def _scored(self, text: RecordedText, trees: GivenTrees, temperature: float) -> Expansion:
        """Given trees `[T, N]` of a text as they would be drafted."""

    @torch.inference_mode()
    def annotate(self, texts: Sequence[RecordedText]) -> list[Annotation]:
        """See `Drafter.annotate`; `top_ids` and what goes with them are the first offset's."""
        return [self._annotation(text) for text in texts]

    def _annotation(self, text: RecordedText) -> Annotation:
        tokens, last = torch.from_numpy(text.tokens).to(self._target.device), len(text.tokens) - 1
        ranks = np.full((last + 1, self._deepest), -1, dtype=np.int32)
        said = [_nothing_said(min(TOP_K, self._target.width))]
        for first, offset, logits in self._said_along(text):
            places = np.arange(first, first + len(logits)) + offset  # where the tokens stand that are proposed
            wanted = tokens[torch.from_numpy(np.minimum(places, last)).to(tokens.device)]
            there = places <= last
            ranks[places[there], offset - 1] = ranks_of(logits, wanted).cpu().numpy()[there]
            if offset == 1:
                said.append(Said.of(logits[None], wanted[None]))
        whole = Said(*(np.concatenate(parts, 1) for parts in zip(*said, strict=True)))
        return whole.annotation(0, last + 1)._replace(ranks=ranks)

    @property
    def _deepest(self) -> int:
        assert self.traits.deepest is not None
        return self.traits.deepest

    def describe_trees(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Described]:
        """See `Drafter.describe_trees`: nothing learns from it."""
        self._refuse()

    @torch.inference_mode()
    def score(
        self, texts: Sequence[RecordedText], trees: Sequence[GivenTrees], temperature: float, featured: bool = False
    ) -> Iterator[Described]:
        """See `Drafter.score`."""
        if featured:
            self._refuse()
        for text, given in zip(texts, trees, strict=True):
            yield Described(self._scored(text, given.at_starts(len(text.tokens) - 1), temperature))

    def _refuse(self) -> NoReturn:
        raise ConfigError("nothing is learnt of a drafter that proposes by the distance from the root")

    def facts(self) -> dict[str, Any]:
        """See `Drafter.facts`."""
        return self._known.facts

    def describe(self) -> dict[str, Any]:
        """See `Drafter.describe`."""
        return self._known.description


class StartsDrafter(OffsetDrafter):
    """See `OffsetDrafter`: what it says at some starts of a text does not hang on what it says at others."""

    @abstractmethod
    def along(self, text: RecordedText) -> StartsOf:
        """What is said at the starts of a text."""

    def _said_along(self, text: RecordedText) -> Iterator[tuple[int, int, torch.Tensor]]:
        """See `OffsetDrafter._said_along`."""
        for first, logits in self._along(text, self._deepest):
            for offset in range(1, self._deepest + 1):
                yield first, offset, logits[:, offset - 1]

    def _along(self, text: RecordedText, heads: int) -> Iterator[tuple[int, torch.Tensor]]:
        """The first of some starts, and `[m, heads, vocab]` what is said at them, until all starts were there."""
        at_once, said, count = max(1, logits_at_once(self._target, heads)), self.along(text), len(text.tokens) - 1
        for first in range(0, count, at_once):
            yield first, said(first, min(first + at_once, count), heads)

    @torch.inference_mode()
    def logits_along(self, texts: Sequence[RecordedText], at_once: int) -> Iterator[torch.Tensor]:
        """See `Drafter.logits_along`: the first head's."""
        said = [(self.along(text), len(text.tokens) - 1) for text in texts]
        yield torch.zeros(len(texts), 1, self._target.width, device=self._target.device)
        for first in range(0, max(count for _, count in said), at_once):
            here = [starts(min(first, count), min(first + at_once, count), 1)[:, 0] for starts, count in said]
            yield pad_sequence(here, batch_first=True)


def _nothing_said(count: int) -> Said:
    """Of position 0, which no head proposes."""
    nothing = np.zeros((1, 1, count))
    return Said(np.full((1, 1), -1), nothing.astype(np.int32), nothing.astype(np.float32), nothing[..., 0].astype("f4"))
