"""Drafters whose proposal for each distance from the root is known at once: heads on one state of the target.

Below a root at position t of a text, every node at depth d has the children that head d proposes for position t + d,
from the target's state of the token before the root, whatever the node's path. So trees are made without a forward of
their own, live and along recorded texts alike.

Letters: T starts of a text, O heads, K children.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol

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
)
from specdraft.drafters.grams import GrowingText
from specdraft.drafters.loaded.expansion import as_expansion
from specdraft.drafters.loaded.model import Said
from specdraft.drafters.loaded.ranking import best_children, rank_tokens, ranks_of
from specdraft.drafters.loaded.tree_in_work import LevelTensors, PreparedTopology, TreeInWork
from specdraft.errors import ConfigError
from specdraft.models.batch import logits_at_once
from specdraft.models.cached_model import CachedModel
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import NestedPlan, Plan


class Heads(Protocol):
    """What proposes."""

    def __call__(self, states: torch.Tensor, count: int) -> torch.Tensor:
        """`[m, width]` states -> `[m, count, vocab]` float32 logits of the first `count` heads."""


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


class PositionWiseDrafter:
    """Heads with the state that they read next.

    Args:
        heads: what proposes.
        target: whose states they read.
        known: what it is.
    """

    def __init__(self, heads: Heads, target: CachedModel, known: Known) -> None:
        self._heads, self._target, self._known = heads, target, known
        self._prepared: PreparedTopology | None = None
        self._before = self._after_prompt = torch.empty(0, 0)

    @property
    def traits(self) -> DrafterTraits:
        """See `Drafter.traits`."""
        return self._known.traits

    def begin(self, prompt: Prefilled) -> None:
        """See `Drafter.begin`: the first root is not in the prompt, the token before it is the prompt's last."""
        assert prompt.hidden is not None
        self._before = self._after_prompt = prompt.hidden[-1:, 0]

    def rewind(self) -> None:
        """See `Drafter.rewind`."""
        self._before = self._after_prompt

    @torch.inference_mode()
    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`."""
        work = TreeOfHeads(self._heads(self._before, plan.depth)[0], self._target, root, drawing, self._prepared)
        tree = plan.expand(work)
        self._prepared = work.prepared
        return tree

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int], hidden: torch.Tensor | None = None) -> None:
        """See `Drafter.commit`: the next root follows the last accepted node, or the root itself."""
        assert hidden is not None
        self._before = hidden[-1:, 0]

    @torch.inference_mode()
    def annotate(self, texts: Sequence[RecordedText]) -> list[Annotation]:
        """See `Drafter.annotate`; `top_ids` and what goes with them are the first head's."""
        return [self._annotation(text) for text in texts]

    def _annotation(self, text: RecordedText) -> Annotation:
        slices = (
            (first, offset, logits[:, offset - 1])
            for first, logits in self._along(text, self._deepest)
            for offset in range(1, self._deepest + 1)
        )
        return by_offset(text, self._deepest, self._target, slices)

    def _along(self, text: RecordedText, heads: int) -> Iterator[tuple[int, torch.Tensor]]:
        """The first of some starts, and `[m, heads, vocab]` what is said at them, until all starts were there."""
        at_once = max(1, logits_at_once(self._target, heads))
        states = _states_before(text)
        for first in range(0, len(states), at_once):
            yield first, self._heads(states[first : first + at_once], heads)

    @property
    def _deepest(self) -> int:
        assert self.traits.deepest is not None
        return self.traits.deepest

    @torch.inference_mode()
    def logits_along(self, texts: Sequence[RecordedText], at_once: int) -> Iterator[torch.Tensor]:
        """See `Drafter.logits_along`: the first head's."""
        longest = max(len(text.tokens) for text in texts)
        states = pad_sequence([_states_before(text) for text in texts], batch_first=True)
        yield torch.zeros(len(texts), 1, self._target.width, device=self._target.device)
        for first in range(0, longest - 1, at_once):
            some = states[:, first : first + at_once]
            yield self._heads(some.flatten(0, 1), 1).view(*some.shape[:2], -1)

    @torch.inference_mode()
    def expand(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Expansion]:
        """See `Drafter.expand`: the cartesian trees, out of what the heads say at each start."""
        for text in texts:
            assert plan.temperature is not None, "its temperature is fitted first"
            best = self._best_along(text, plan.depth, plan.looked_at(self._target.vocab), plan.temperature)
            yield _grown(best, plan)

    def _best_along(self, text: RecordedText, heads: int, count: int, temperature: float) -> Best:
        parts = [Best(np.empty((0, heads, count), dtype=np.int64), np.empty((0, heads, count)))]
        for _, logits in self._along(text, heads):
            found = best_children(logits.flatten(0, 1), count, temperature)
            parts.append(Best(*(field.reshape(len(logits), heads, count) for field in found)))
        return Best(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))

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

    def _scored(self, text: RecordedText, trees: GivenTrees, temperature: float) -> Expansion:
        depth = trees.depth
        row, place = np.nonzero(depth > 0)
        heads, count = int(depth.max(initial=1)), 1 + int(trees.rank.max(initial=0))
        best = self._best_along(text, heads, count, temperature)
        chosen = row, depth[row, place] - 1, trees.rank[row, place]
        tokens = np.full(depth.shape, -1, dtype=np.int32)
        tokens[row, place] = best.tokens[chosen]
        own = np.zeros(depth.shape)
        own[row, place] = best.log_probs[chosen]
        reached, starts = np.zeros((len(depth), depth.shape[1] + 1)), np.arange(len(depth))
        for node in range(depth.shape[1]):  # parents come first
            reached[:, node + 1] = own[:, node] + reached[starts, np.maximum(trees.parent[:, node], 0)]
        return Expansion(trees.parent, trees.rank, tokens, np.where(depth > 0, reached[:, 1:], 0.0))

    def _refuse(self) -> NoReturn:
        raise ConfigError("nothing is learnt of a drafter that proposes by the distance from the root")

    def rehearse(self, parents: int) -> None:
        """See `Drafter.rehearse`: one head, however many nodes share what it says."""
        rank_tokens(self._heads(self._before, 1)[0], 2)

    def facts(self) -> dict[str, Any]:
        """See `Drafter.facts`."""
        return self._known.facts

    def describe(self) -> dict[str, Any]:
        """See `Drafter.describe`."""
        return self._known.description


def by_offset(
    text: RecordedText, offsets: int, target: CachedModel, slices: Iterator[tuple[int, int, torch.Tensor]]
) -> Annotation:
    """What is said at each offset from each start of a text.

    Args:
        text: the text.
        offsets: O.
        target: whose it is.
        slices: the first of m starts, an offset from 1, and `[m, vocab]` logits there; of one offset in the order of
            the starts.
    """
    tokens, last = torch.from_numpy(text.tokens).to(target.device), len(text.tokens) - 1
    ranks = np.full((last + 1, offsets), -1, dtype=np.int32)
    said = [_nothing_said(min(TOP_K, target.width))]
    for first, offset, logits in slices:
        places = np.arange(first, first + len(logits)) + offset  # where the tokens stand that are proposed
        wanted = tokens[torch.from_numpy(np.minimum(places, last)).to(tokens.device)]
        there = places <= last
        ranks[places[there], offset - 1] = ranks_of(logits, wanted).cpu().numpy()[there]
        if offset == 1:
            said.append(Said.of(logits[None], wanted[None]))
    whole = Said(*(np.concatenate(parts, 1) for parts in zip(*said, strict=True)))
    return whole.annotation(0, last + 1)._replace(ranks=ranks)


def _states_before(text: RecordedText) -> torch.Tensor:
    """`[T, width]` the state of the token before the root, of a root at each of the positions 0 .. T - 1."""
    assert text.hidden is not None
    first = len(text.prompt_ids) - 1  # the last token of the prompt comes before position 0
    return text.hidden[first : first + len(text.tokens) - 1, 0]


def _nothing_said(count: int) -> Said:
    """Of position 0, which no head proposes."""
    nothing = np.zeros((1, 1, count))
    return Said(np.full((1, 1), -1), nothing.astype(np.int32), nothing.astype(np.float32), nothing[..., 0].astype("f4"))


class Best(NamedTuple):
    """`[T, O, K]` the heads' most probable tokens, and the logarithms of their probabilities."""

    tokens: np.ndarray
    log_probs: np.ndarray


def _grown(best: Best, plan: NestedPlan) -> Expansion:
    """Best-first trees of all starts."""
    starts = len(best.tokens)
    growth = plan.growth(starts, best.tokens.shape[2], whole=True)
    start = np.arange(starts)  # of each node
    while len(growth.frontier):
        said = start[growth.frontier], growth.nodes_at(growth.frontier).depth
        growth.add(best.tokens[said], best.log_probs[said])
        start = np.concatenate([start, start[growth.nodes_at(growth.newest).parent]])
    return as_expansion(growth.trees())


class TreeOfHeads(TreeInWork):
    """See `TreeInWork`: nothing is fed, what is said at each depth is there.

    Args:
        logits: `[D, vocab]` what heads say of each depth from 1.
        target, root, drawing, prepared: see `TreeInWork`; the target is only asked how many tokens there are.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        target: CachedModel,
        root: int,
        drawing: Drawing,
        prepared: PreparedTopology | None = None,
    ) -> None:
        nothing = torch.empty(0, dtype=torch.long, device=target.device)
        super().__init__(target, nothing, root, drawing, GrowingText().until(root), prepared)  # no predictor asks
        self._by_depth = logits
        self._depth: list[int] = []  # of each scored node, by its turn
        self._best: tuple[np.ndarray, np.ndarray] | None = None

    def score(
        self, parents: Sequence[int], tokens: np.ndarray, count: int, temperature: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `shapes.DraftView.score`: one transfer for all levels."""
        if self._best is None:
            self._best = best_children(self._by_depth, count, temperature)
        rows = self._rows(parents)
        if self._drawing.keep_logits:
            self._logits.append(self._by_depth[rows])
        ids, log_probs = self._best
        return ids[rows], log_probs[rows]

    def _rows(self, parents: Sequence[int]) -> list[int]:
        """Of the nodes that are scored now."""
        rows = [self._depth[parent] + 1 for parent in parents] if self._depth else [0]
        self._depth += rows
        return rows

    def _after(self, parents: Sequence[int], tokens: np.ndarray) -> torch.Tensor:
        return self._by_depth[self._rows(parents)]

    def _feed_root(self) -> torch.Tensor:
        return self._by_depth[:1]

    def _feed(self, level: LevelTensors) -> torch.Tensor:
        return self._by_depth[len(self._tokens) - 1].expand(len(level.parents), -1)

    def _children(self, logits: torch.Tensor, count: int) -> torch.Tensor:
        if self._drawing.draw == "rank":
            return rank_tokens(logits[:1], count).expand(len(logits), -1)  # all of a level are alike
        return super()._children(logits, count)
