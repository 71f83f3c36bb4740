"""One tree in work: what a draft model feeds and keeps while a tree grows, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from specdraft.drafters.base import Drawing
from specdraft.drafters.loaded.ranking import best_children, log_probs_of_nodes, rank_tokens, said_children, spread
from specdraft.errors import TreeError
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import tail_mask
from specdraft.models.sending import to_device
from specdraft.sampling.distribution import standardise
from specdraft.sampling.randomness import draw_children
from specdraft.trees.draft_tree import ChosenFrom, DraftTree
from specdraft.trees.shapes.base import SaidChildren, TextsBefore
from specdraft.trees.topology import Topology


def with_descendants(seen: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Which node sees which after more nodes: `[k, k]` bool and the parents `[m]` of the new ones -> `[k + m, k +
    m]`."""
    old, new = len(seen), len(parents)
    grown = np.zeros((old + new, old + new), dtype=bool)
    grown[:old, :old] = seen
    grown[old:, :old] = seen[parents]
    grown[np.arange(old, old + new), np.arange(old, old + new)] = True
    return grown


class LevelTensors(NamedTuple):
    """What drafting one level needs on the device."""

    most: int  # the highest rank + 1
    parents: torch.Tensor  # [m] nodes that are fed to make this level
    offsets: torch.Tensor  # [m] their depths
    tail: torch.Tensor  # [m, fed so far] additive mask over all nodes that were fed
    parent_row: torch.Tensor  # [k]
    ranks: torch.Tensor  # [k]


class PreparedTopology:
    """What a topology needs on the device: made once for a static shape."""

    def __init__(self, topology: Topology, model: CachedModel) -> None:
        if (topology.depths[1:] < topology.depths[:-1]).any():
            raise TreeError("a tree that is drafted must list its nodes depth by depth")
        if (highest := int(topology.ranks[1:].max(initial=0))) >= model.vocab:
            raise TreeError(
                f"the tree has child rank {highest}, but there are only {model.vocab} tokens to choose from"
            )
        self.topology = topology
        self.levels: list[LevelTensors] = []
        self.chosen_from = np.zeros(len(topology), dtype=np.int64)  # see `ChosenFrom.row`
        fed: list[int] = []  # nodes in the order of their cache slots; leaves are not fed
        ancestors, depths = torch.from_numpy(topology.ancestors), torch.from_numpy(topology.depths)
        for level in topology.levels:
            parents, ranks = torch.from_numpy(level.parents), torch.from_numpy(level.ranks)
            fed += level.parents.tolist()
            tail = tail_mask(ancestors[parents][:, fed], model.dtype)
            rows = torch.from_numpy(level.parent_row)
            on_device = [t.to(model.device) for t in (parents, depths[parents], tail, rows, ranks)]
            self.chosen_from[level.nodes] = len(fed) - len(level.parents) + level.parent_row
            self.levels.append(LevelTensors(int(ranks.max()) + 1, *on_device))
        self.slot = {node: slot for slot, node in enumerate(fed)}


class TreeInWork:
    """See `shapes.DraftView`: it grows one tree below a root, and knows afterwards which nodes were fed.

    Leaves are not fed to the model: nothing is drafted below them.

    Args:
        model: with the tokens before the root in its cache.
        missing: `[m]` the committed tokens that are not in the cache yet.
        root: the root's token.
        drawing: how children are chosen.
        before: see `shapes.DraftView.before`.
        prepared: of the topology that was grown last, used again if it is this one.

    Attributes:
        slot: node of the finished tree -> its slot among those that were fed for it.
        prepared: of the topology that was grown.
    """

    def __init__(
        self,
        model: CachedModel,
        missing: torch.Tensor,
        root: int,
        drawing: Drawing,
        before: TextsBefore,
        prepared: PreparedTopology | None = None,
    ) -> None:
        self._model, self._missing, self._drawing = model, missing, drawing
        self._tokens = [to_device([root], model.device)]
        self._probs = [torch.ones(1, device=model.device)]
        self._drawn_from: list[torch.Tensor] = []  # [m, vocab] of each level's parents
        self._logits: list[torch.Tensor] = []  # [m, vocab] after each level's parents
        self._valid: list[torch.Tensor] = []  # [m, most] which children there are
        self._newest = torch.empty(0)  # [m, vocab] logits of the last level's parents
        self._seen = np.empty((0, 0), dtype=bool)  # which scored node sees which
        self.slot: dict[int, int] = {}
        self.prepared = prepared
        self.before = before

    @property
    def vocab(self) -> int:
        """See `shapes.DraftView.vocab`."""
        return self._model.vocab

    def grow(self, topology: Topology, depth: int) -> None:
        """See `shapes.DraftView.grow`; the topology lists its nodes depth by depth."""
        level = self._prepare(topology).levels[depth - 1]
        logits = self._feed_root() if depth == 1 else self._feed(level)
        tokens = self._children(logits, level.most)[level.parent_row, level.ranks]
        self._tokens.append(tokens)
        self._newest = logits
        if self._drawing.keep_logits:
            self._logits.append(logits)
        if self._drawing.keep_probs:
            self._probs.append(torch.softmax(logits, -1)[level.parent_row, tokens])

    def finish(self, topology: Topology) -> DraftTree:
        """See `shapes.DraftView.finish`."""
        levels, self.slot = self._prepare(topology).levels, self._prepare(topology).slot
        tokens, probs = torch.cat(self._tokens), torch.cat(self._probs) if self._drawing.keep_probs else None
        if self._drawing.draw == "rank":
            return DraftTree(
                topology, tokens, probs, chosen_from=self._chosen_from(self._prepare(topology).chosen_from)
            )
        drawn_from = self._drawn_from[0].new_zeros(len(topology), self._drawn_from[0].shape[-1])  # [n + 1, vocab]
        for level, rows in zip(levels, self._drawn_from, strict=True):
            drawn_from[level.parents] = rows
        kept = self._kept(topology)
        if len(kept) == len(topology):
            return DraftTree(topology, tokens, probs, drawn_from)
        self.slot = {new: self.slot[old] for new, old in enumerate(kept) if old in self.slot}
        return DraftTree(topology.part(kept), tokens[kept], None if probs is None else probs[kept], drawn_from[kept])

    def newest(self, entropy: bool) -> tuple[float, float]:
        """See `shapes.DraftView.newest`."""
        drawing = self._drawing
        raw = drawing.draw == "rank" or drawing.sampling.greedy
        logits = self._newest if raw else self._drawn_from[-1].log()
        tokens = self._tokens[-1]
        log_prob = log_probs_of_nodes(logits, torch.zeros_like(tokens), tokens, 1.0)[0]
        return float(log_prob), float(spread(logits)[0, 0]) if entropy else 0.0

    def score(
        self, parents: Sequence[int], tokens: np.ndarray, count: int, temperature: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `shapes.DraftView.score`."""
        return best_children(self._score(parents, tokens), count, temperature)

    def describe(self, parents: Sequence[int], tokens: np.ndarray, count: int, temperature: float) -> SaidChildren:
        """See `shapes.DraftView.describe`."""
        return said_children(self._score(parents, tokens), count, temperature)

    def _score(self, parents: Sequence[int], tokens: np.ndarray) -> torch.Tensor:
        """`[m, vocab]` logits after nodes that are in no topology yet."""
        logits = self._after(parents, tokens)
        if self._drawing.keep_logits:
            self._logits.append(logits)
        return logits

    def _after(self, parents: Sequence[int], tokens: np.ndarray) -> torch.Tensor:
        model = self._model
        if not len(self._seen):
            self._seen = np.ones((1, 1), dtype=bool)
            return self._feed_root()
        self._seen = with_descendants(self._seen, np.asarray(parents))
        tail = tail_mask(to_device(self._seen[-len(parents) :], model.device), model.dtype)
        offsets = to_device(self._seen[-len(parents) :].sum(1) - 1, model.device)
        return self._append(to_device(tokens, model.device), offsets, tail)

    def compose(self, topology: Topology, tokens: np.ndarray, log_probs: np.ndarray, turns: Sequence[int]) -> DraftTree:
        """See `shapes.DraftView.compose`."""
        self.slot = {0: 0} | {node: turn for node, turn in enumerate(turns, start=1) if turn >= 0}
        reached = np.concatenate([[0.0], log_probs])
        step = np.exp(reached[1:] - reached[topology.parents[1:]])  # [n] each node's own probability
        drafted = to_device(tokens, self._model.device)
        probs = torch.cat([*self._probs, to_device(step, self._model.device).float()])
        row = np.concatenate([[0], turns])[topology.parents]  # the root's parent is the last node
        chosen_from = self._chosen_from(row)
        probs_kept = probs if self._drawing.keep_probs else None
        nodes = torch.cat([*self._tokens, drafted])
        return DraftTree(topology, nodes, probs_kept, chosen_from=chosen_from, log_probs=log_probs)

    def _chosen_from(self, row: np.ndarray) -> ChosenFrom | None:
        return ChosenFrom(torch.cat(self._logits), row) if self._drawing.keep_logits else None

    def _children(self, logits: torch.Tensor, count: int) -> torch.Tensor:
        """`[m, count]` the children of nodes with these logits `[m, vocab]`."""
        drawing = self._drawing
        if drawing.draw == "rank":
            return rank_tokens(logits, count)
        # in float32 rare children have probability 0
        depth = len(self._drawn_from) + 1
        self._drawn_from.append(standardise(logits.double(), drawing.at(depth)))
        tokens, valid = draw_children(self._drawn_from[-1], count, drawing.draw, drawing.source)
        self._valid.append(valid)
        return tokens

    def _kept(self, topology: Topology) -> list[int]:
        """The nodes that were drawn: a distribution that is used up has no further children."""
        if self._drawing.draw == "iid":  # may repeat a token, so each is there
            return list(range(len(topology)))
        levels = self._prepare(topology).levels
        drawn = [valid[level.parent_row, level.ranks] for level, valid in zip(levels, self._valid, strict=True)]
        there = [True, *torch.cat(drawn).tolist()]
        for node in range(1, len(there)):
            there[node] &= there[int(topology.parents[node])]
        return [node for node, kept in enumerate(there) if kept]

    def _feed_root(self) -> torch.Tensor:
        """`[1, vocab]` logits after the root."""
        tokens = torch.cat([self._missing, self._tokens[0]])
        order = torch.arange(len(tokens), device=self._model.device)
        causal = tail_mask(order[:, None] >= order[None], self._model.dtype)
        logits = self._model.append(tokens, order, causal).logits
        self._model.settle(len(self._missing))
        return logits[-1:]

    def _feed(self, level: LevelTensors) -> torch.Tensor:
        """`[m, vocab]` logits after the level's parents."""
        tokens = torch.cat(self._tokens)[level.parents]
        return self._append(tokens, level.offsets, level.tail)

    def _append(self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        """`[m, vocab]` logits after nodes; arguments as `CachedModel.append`."""
        return self._model.append(tokens, offsets, tail).logits

    def _prepare(self, topology: Topology) -> PreparedTopology:
        if self.prepared is None or self.prepared.topology is not topology:
            self.prepared = PreparedTopology(topology, self._model)
        return self.prepared
