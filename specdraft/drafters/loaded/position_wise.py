"""Drafters whose proposal for each distance from the root is known at once: heads on one state of the target, blocks.

Below a root at position t of a text, every node at depth d has the children that are proposed for position t + d from
the target's states of the tokens before the root (and from the root), whatever the node's path. So trees are made
without a forward of their own, live and along recorded texts alike.

Letters: T starts of a text, O heads, K children.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from specdraft.drafters.base import BY_RANK, Drawing, Expansion, GivenTrees, RecordedText
from specdraft.drafters.grams import GrowingText
from specdraft.drafters.loaded.by_offset import Known, StartsDrafter
from specdraft.drafters.loaded.expansion import as_expansion
from specdraft.drafters.loaded.ranking import best_children, rank_tokens
from specdraft.drafters.loaded.tree_in_work import LevelTensors, PreparedTopology, TreeInWork
from specdraft.models.cached_model import CachedModel
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import NestedPlan, Plan


class PositionWiseDrafter(StartsDrafter):
    """See `StartsDrafter`."""

    def __init__(self, target: CachedModel, known: Known) -> None:
        super().__init__(target, known)
        self._prepared: PreparedTopology | None = None

    @abstractmethod
    def now(self, root: int, count: int) -> torch.Tensor:
        """`[count, vocab]` float32 logits of depths 1 .. count below this root, after what was committed."""

    @torch.inference_mode()
    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`."""
        work = TreeOfHeads(self.now(root, plan.depth), self._target, root, drawing, self._prepared)
        tree = plan.expand(work)
        self._prepared = work.prepared
        return tree

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
