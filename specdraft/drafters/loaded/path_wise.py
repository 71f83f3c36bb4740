"""Drafters whose heads read the tokens of a path, and one state of the target: Hydra's, recurrent ones.

Below a root, the children of a node at depth d are what head d says of the state of the token before the root and of
the path's tokens, the root first, the node last. What a path leaves for its continuations is a row of numbers that the
heads carry; so every node is read once, and levels of many starts are read together.

Letters: m paths, w numbers that are carried, T starts of a text, N nodes of a tree, K children.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from specdraft.drafters.base import BY_RANK, Drawing, Expansion, GivenTrees, RecordedText
from specdraft.drafters.grams import GrowingText
from specdraft.drafters.loaded.by_offset import Known, StartsOf
from specdraft.drafters.loaded.expansion import as_expansion, starts_at_once
from specdraft.drafters.loaded.last_state import LastStateDrafter, states_before
from specdraft.drafters.loaded.ranking import best_children
from specdraft.drafters.loaded.tree_in_work import LevelTensors, PreparedTopology, TreeInWork
from specdraft.models.batch import logits_at_once
from specdraft.models.cached_model import CachedModel
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import NestedPlan, Plan


class PathHeads(Protocol):
    """What proposes; depth 0 is the root's."""

    def begin(self, states: torch.Tensor) -> torch.Tensor:
        """`[m, width]` the target's states of the tokens before the roots -> `[m, w]`, before anything is read."""

    def read(self, carried: torch.Tensor, tokens: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        """`[m, w]` after one more token `[m]` of each path, at these depths `[m]`."""

    def say(self, carried: torch.Tensor, depth: int) -> torch.Tensor:
        """`[m, vocab]` float32 logits of the children of nodes at this depth."""


class PathWiseDrafter(LastStateDrafter):
    """See `OffsetDrafter`.

    Args:
        heads: what proposes.
        target, known: see `OffsetDrafter`.
    """

    def __init__(self, heads: PathHeads, target: CachedModel, known: Known) -> None:
        super().__init__(target, known)
        self._heads = heads
        self._prepared: PreparedTopology | None = None

    @torch.inference_mode()
    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """See `Drafter.draft`."""
        work = TreeOfPaths(self._heads, self._before, self._target, root, drawing, self._prepared)
        tree = plan.expand(work)
        self._prepared = work.prepared
        return tree

    def along(self, text: RecordedText) -> StartsOf:
        """See `StartsDrafter.along`: the paths are the text's own."""
        states, tokens = states_before(text), self._ids(text.tokens)

        def said(first: int, last: int, count: int) -> torch.Tensor:
            carried, found = self._heads.begin(states[first:last]), []
            for depth in range(count):
                places = torch.arange(first + depth, last + depth, device=tokens.device)
                read = tokens[places.clamp(max=len(tokens) - 1)]  # beyond the end nothing is asked for
                carried = self._heads.read(carried, read, torch.full_like(read, depth))
                found.append(self._heads.say(carried, depth))
            return torch.stack(found, 1)

        return said

    def _ids(self, tokens: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(tokens.astype(np.int64)).to(self._target.device)

    @torch.inference_mode()
    def expand(self, texts: Sequence[RecordedText], plan: NestedPlan) -> Iterator[Expansion]:
        """See `Drafter.expand`."""
        for text in texts:
            states, parts = states_before(text), []
            for first in range(0, len(states), starts_at_once(plan)):
                some = slice(first, first + starts_at_once(plan))
                parts.append(self._grown(states[some], text.tokens[:-1][some], plan))
            yield Expansion(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))

    def _grown(self, states: torch.Tensor, roots: np.ndarray, plan: NestedPlan) -> Expansion:
        """Best-first trees below roots `[T]`."""
        assert plan.temperature is not None, "its temperature is fitted first"
        count = plan.looked_at(self._target.vocab)
        growth = plan.growth(len(roots), count, whole=True)
        nodes, turn = growth.nodes_at(growth.frontier), np.arange(len(roots))  # when each node was read
        carried = self._heads.read(self._heads.begin(states), self._ids(roots), self._ids(nodes.depth))
        new = carried
        while len(growth.frontier):
            read = growth.frontier
            growth.add(*self._best(new, nodes.depth, count, plan.temperature))
            turn = np.append(turn, np.zeros(len(growth.newest), dtype=np.int64))
            turn[read] = np.arange(len(carried) - len(read), len(carried))
            nodes = growth.nodes_at(growth.frontier)
            above = carried[self._ids(turn[nodes.parent])]
            new = self._heads.read(above, self._ids(nodes.token), self._ids(nodes.depth))
            carried = torch.cat([carried, new])
        return as_expansion(growth.trees())

    def _best(
        self, carried: torch.Tensor, depth: np.ndarray, count: int, temperature: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """`[m, K]` each: the most probable children of nodes at depths `[m]`, and the logarithms of their
        probabilities."""
        ids, log_probs = np.zeros((len(depth), count), dtype=np.int64), np.zeros((len(depth), count))
        at_once = logits_at_once(self._target, 1)
        for level in np.unique(depth).tolist():
            here = np.flatnonzero(depth == level)
            for some in np.split(here, range(at_once, len(here), at_once)):
                said = self._heads.say(carried[self._ids(some)], level)
                ids[some], log_probs[some] = best_children(said, count, temperature)
        return ids, log_probs

    def _scored(self, text: RecordedText, trees: GivenTrees, temperature: float) -> Expansion:
        depth, count = trees.depth, 1 + int(trees.rank.max(initial=0))
        tokens, reached = np.full(depth.shape, -1, dtype=np.int32), np.zeros((len(depth), depth.shape[1] + 1))
        inside = np.zeros(reached.shape, dtype=bool)  # who has children
        row, place = np.nonzero(depth > 0)
        inside[row, trees.parent[row, place]] = True
        turn = np.zeros(reached.shape, dtype=np.int64)  # of each node among those of its level that were read
        turn[:, 0] = np.arange(len(depth))
        carried = self._heads.begin(states_before(text))
        read = text.tokens[:-1]
        for level in range(1, 1 + int(depth.max(initial=0))):
            carried = self._heads.read(carried, self._ids(read), self._ids(np.full(len(read), level - 1)))
            ids, log_probs = self._best(carried, np.full(len(read), level - 1), count, temperature)
            row, place = np.nonzero(depth == level)
            parent = trees.parent[row, place]
            chosen = turn[row, parent], trees.rank[row, place]
            tokens[row, place] = ids[chosen]
            reached[row, place + 1] = reached[row, parent] + log_probs[chosen]
            going = inside[row, place + 1]
            turn[row[going], place[going] + 1] = np.arange(going.sum())
            carried, read = carried[self._ids(chosen[0][going])], tokens[row[going], place[going]]
        return Expansion(trees.parent, trees.rank, tokens, np.where(depth > 0, reached[:, 1:], 0.0))


class TreeOfPaths(TreeInWork):
    """See `TreeInWork`: what is fed goes through the heads, and what they carry is kept.

    Args:
        heads: what proposes.
        before: `[1, width]` the state of the token before the root.
        target, root, drawing, prepared: see `TreeInWork`; the target is only asked how many tokens there are.
    """

    def __init__(
        self,
        heads: PathHeads,
        before: torch.Tensor,
        target: CachedModel,
        root: int,
        drawing: Drawing,
        prepared: PreparedTopology | None = None,
    ) -> None:
        nothing = torch.empty(0, dtype=torch.long, device=target.device)
        super().__init__(target, nothing, root, drawing, GrowingText().until(root), prepared)  # no predictor asks
        self._heads, self._start = heads, heads.begin(before)
        self._carried = self._start[:0]  # of the nodes that were fed, in their order
        self._depth = np.empty(0, dtype=np.int64)  # likewise, of those that were scored

    def _feed_root(self) -> torch.Tensor:
        self._depth = np.zeros(1, dtype=np.int64)
        self._carried = self._heads.read(self._start, self._tokens[0], torch.zeros_like(self._tokens[0]))
        return self._heads.say(self._carried, 0)

    def _feed(self, level: LevelTensors) -> torch.Tensor:
        assert self.prepared is not None
        depth = len(self._tokens) - 1
        above = self.prepared.chosen_from[self.prepared.topology.levels[depth].parents]
        self._read(above, torch.cat(self._tokens)[level.parents], level.offsets)
        return self._heads.say(self._carried[-len(above) :], depth)

    def _read(self, above: np.ndarray, tokens: torch.Tensor, depth: torch.Tensor) -> None:
        before = self._carried[torch.from_numpy(above).to(self._carried.device)]
        self._carried = torch.cat([self._carried, self._heads.read(before, tokens, depth)])

    def _after(self, parents: Sequence[int], tokens: np.ndarray) -> torch.Tensor:
        if not len(self._depth):
            return self._feed_root()
        above, device = np.asarray(parents), self._carried.device
        depth = self._depth[above] + 1
        self._depth = np.append(self._depth, depth)
        self._read(above, torch.from_numpy(tokens).to(device), torch.from_numpy(depth).to(device))
        new, logits = self._carried[-len(depth) :], None
        for level in np.unique(depth).tolist():
            here = torch.from_numpy(np.flatnonzero(depth == level)).to(device)
            said = self._heads.say(new[here], level)
            logits = said.new_empty(len(depth), said.shape[1]) if logits is None else logits
            logits[here] = said
        assert logits is not None
        return logits
