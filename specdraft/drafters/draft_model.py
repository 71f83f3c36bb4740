"""A smaller causal LM drafts the tree, level by level, over its own cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from specdraft.drafters.base import BY_RANK, Drawing
from specdraft.errors import TreeError
from specdraft.models.cached_model import CachedModel, tail_mask
from specdraft.sampling.distribution import standardise
from specdraft.sampling.randomness import draw_children
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan
from specdraft.trees.topology import Topology


def rank_tokens(logits: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` most probable tokens of each row, best first: `[m, vocab]` -> `[m, count]` ids.

    Ordered by (-logit, token id), which `torch.topk` alone does not promise for equals.
    """
    if count == 1:
        return logits.argmax(-1, keepdim=True)
    if logits.device.type != "cpu":
        return rank_by_key(logits, count)
    values, ids = logits.float().topk(count, dim=-1)
    ids, order = ids.sort(-1)
    ranked = ids.gather(-1, values.gather(-1, order).sort(stable=True, dim=-1, descending=True).indices)
    unsure = (logits >= values[:, -1:]).sum(-1) > count  # equals of the last one were left out: which?
    if unsure.any():
        ranked[unsure] = rank_by_key(logits[unsure], count)
    return ranked


def rank_by_key(logits: torch.Tensor, count: int) -> torch.Tensor:
    """`rank_tokens` without a look at the result: the id is packed below the logit's bits into one integer key.

    Nothing waits for a GPU here; on a CPU the keys cost several times what the logits do.
    """
    bits = (logits.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()  # floats in integer order
    ids = torch.arange(logits.shape[-1], device=logits.device)
    return ((ordered << 32) - ids).topk(count, dim=-1).indices


def best_children(logits: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` most probable tokens of each row and the logarithms of their probabilities, on the host.

    `[m, vocab]` logits -> `[m, count]` ids and `[m, count]` float64, best first; one transfer.
    """
    tokens = rank_tokens(logits, count)
    log_probs = torch.log_softmax(logits, -1).gather(-1, tokens)
    ids, values = torch.stack([tokens.double(), log_probs.double()]).cpu().numpy()
    return ids.astype(np.int64), values


def with_descendants(seen: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Which node sees which after more nodes: `[k, k]` bool and the parents `[m]` of the new ones -> `[k + m, k +
    m]`."""
    old, new = len(seen), len(parents)
    grown = np.zeros((old + new, old + new), dtype=bool)
    grown[:old, :old] = seen
    grown[old:, :old] = seen[parents]
    grown[np.arange(old, old + new), np.arange(old, old + new)] = True
    return grown


class _LevelTensors(NamedTuple):
    most: int  # the highest rank + 1
    parents: torch.Tensor  # [m] nodes that are fed to make this level
    offsets: torch.Tensor  # [m] their depths
    tail: torch.Tensor  # [m, fed so far] additive mask over all nodes that were fed
    parent_row: torch.Tensor  # [k]
    ranks: torch.Tensor  # [k]


class _Prepared:
    """What a topology needs on the device: made once for a static shape."""

    def __init__(self, topology: Topology, model: CachedModel) -> None:
        if (topology.depths[1:] < topology.depths[:-1]).any():
            raise TreeError("a tree that is drafted must list its nodes depth by depth")
        if (highest := int(topology.ranks[1:].max(initial=0))) >= model.vocab:
            raise TreeError(
                f"the tree has child rank {highest}, but there are only {model.vocab} tokens to choose from"
            )
        self.topology = topology
        self.levels: list[_LevelTensors] = []
        fed: list[int] = []  # nodes in the order of their cache slots; leaves are not fed
        ancestors, depths = torch.from_numpy(topology.ancestors), torch.from_numpy(topology.depths)
        for level in topology.levels:
            parents, ranks = torch.from_numpy(level.parents), torch.from_numpy(level.ranks)
            fed += level.parents.tolist()
            tail = tail_mask(ancestors[parents][:, fed], model.dtype)
            rows = torch.from_numpy(level.parent_row)
            on_device = [t.to(model.device) for t in (parents, depths[parents], tail, rows, ranks)]
            self.levels.append(_LevelTensors(int(ranks.max()) + 1, *on_device))
        self.slot = {node: slot for slot, node in enumerate(fed)}


class DraftModel:
    """A draft model with the committed tokens in its cache.

    Leaves are not fed to the model (nothing is drafted below them), so an accepted leaf is still missing
    from the cache afterwards; it is fed together with the next root.

    Args:
        model: the draft model.
        keep_probs: also keep each drafted token's probability (softmax at temperature 1).
    """

    def __init__(self, model: CachedModel, keep_probs: bool = False) -> None:
        self.model, self._keep_probs = model, keep_probs
        self._prepared: _Prepared | None = None
        self._missing = self._no_token = torch.empty(0, dtype=torch.long, device=model.device)
        self._slot: dict[int, int] = {}  # node of the last tree -> its slot among those fed for it

    def begin(self, prompt_ids: Sequence[int]) -> None:
        """Start over with a prompt."""
        self.model.reset()
        self.model.prefill(prompt_ids)
        self._missing = self._no_token

    @property
    def vocab(self) -> int:
        """See `shapes.DraftView.vocab`."""
        return self.model.vocab

    def draft(self, root: int, plan: Plan, drawing: Drawing = BY_RANK) -> DraftTree:
        """One tree below `root`; one forward per level."""
        device = self.model.device
        self._drawing = drawing
        self._drawn_from: list[torch.Tensor] = []  # [m, vocab] of each level's parents
        self._valid: list[torch.Tensor] = []  # [m, most] which children there are
        self._tokens = [torch.tensor([root], device=device)]
        self._probs = [torch.ones(1, device=device)]
        self._seen = np.empty((0, 0), dtype=bool)
        return plan.expand(self)

    def grow(self, topology: Topology, depth: int) -> None:
        """See `shapes.DraftView.grow`; the topology lists its nodes depth by depth."""
        level = self._prepare(topology).levels[depth - 1]
        logits = self._feed_root() if depth == 1 else self._feed(level)
        tokens = self._children(logits, level.most)[level.parent_row, level.ranks]
        self._tokens.append(tokens)
        if self._keep_probs:
            self._probs.append(torch.softmax(logits, -1)[level.parent_row, tokens])

    def finish(self, topology: Topology) -> DraftTree:
        """See `shapes.DraftView.finish`."""
        self._slot = self._prepare(topology).slot
        tokens, probs = torch.cat(self._tokens), torch.cat(self._probs) if self._keep_probs else None
        if self._drawing.draw == "rank":
            return DraftTree(topology, tokens, probs)
        drawn_from = torch.zeros(len(topology), self.vocab, dtype=self._drawn_from[0].dtype, device=self.model.device)
        for level, rows in zip(self._prepare(topology).levels, self._drawn_from, strict=True):
            drawn_from[level.parents] = rows
        kept = self._kept(topology)
        if len(kept) == len(topology):
            return DraftTree(topology, tokens, probs, drawn_from)
        self._slot = {new: self._slot[old] for new, old in enumerate(kept) if old in self._slot}
        return DraftTree(topology.part(kept), tokens[kept], None if probs is None else probs[kept], drawn_from[kept])

    def _children(self, logits: torch.Tensor, count: int) -> torch.Tensor:
        """`[m, count]` the children of nodes with these logits `[m, vocab]`."""
        drawing = self._drawing
        if drawing.draw == "rank":
            return rank_tokens(logits, count)
        self._drawn_from.append(
            standardise(logits.double(), drawing.sampling)
        )  # in float32 rare children have probability 0
        tokens, valid = draw_children(self._drawn_from[-1], count, drawing.draw, drawing.source)
        self._valid.append(valid)
        return tokens

    def _kept(self, topology: Topology) -> list[int]:
        """The nodes that were drawn: a distribution that is used up has no further children."""
        levels = self._prepare(topology).levels
        drawn = [valid[level.parent_row, level.ranks] for level, valid in zip(levels, self._valid, strict=True)]
        there = [True, *torch.cat(drawn).tolist()]
        for node in range(1, len(there)):
            there[node] &= there[int(topology.parents[node])]
        return [node for node, kept in enumerate(there) if kept]

    def score(self, parents: Sequence[int], tokens: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See `shapes.DraftView.score`."""
        if len(self._seen):
            self._seen = with_descendants(self._seen, np.asarray(parents))
            tail = tail_mask(torch.from_numpy(self._seen[-len(parents) :]).to(self.model.device), self.model.dtype)
            offsets = torch.from_numpy(self._seen[-len(parents) :].sum(1) - 1).to(self.model.device)
            logits = self.model.append(torch.from_numpy(tokens).to(self.model.device), offsets, tail)
        else:
            self._seen = np.ones((1, 1), dtype=bool)
            logits = self._feed_root()
        return best_children(logits, count)

    def compose(self, topology: Topology, tokens: np.ndarray, log_probs: np.ndarray, turns: Sequence[int]) -> DraftTree:
        """See `shapes.DraftView.compose`."""
        self._slot = {0: 0} | {node: turn for node, turn in enumerate(turns, start=1) if turn >= 0}
        reached = np.concatenate([[0.0], log_probs])
        own = np.exp(reached[1:] - reached[topology.parents[1:]])
        drafted = torch.from_numpy(tokens).to(self.model.device)
        probs = [*self._probs, torch.from_numpy(own).float().to(self.model.device)]
        return DraftTree(topology, torch.cat([*self._tokens, drafted]), torch.cat(probs) if self._keep_probs else None)

    def commit(self, tree: DraftTree, accepted_nodes: Sequence[int]) -> None:
        """Keep the root and the accepted nodes that were fed; remember an accepted leaf."""
        fed = [0, *(self._slot[node] for node in accepted_nodes if node in self._slot)]
        self.model.commit(fed)
        leaf = accepted_nodes[-1:] if len(fed) <= len(accepted_nodes) else []
        assert isinstance(tree.tokens, torch.Tensor)
        self._missing = tree.tokens[leaf[0] : leaf[0] + 1] if leaf else self._no_token

    def _feed_root(self) -> torch.Tensor:
        """`[1, vocab]` logits after the root."""
        tokens = torch.cat([self._missing, self._tokens[0]])
        order = torch.arange(len(tokens), device=self.model.device)
        logits = self.model.append(tokens, order, tail_mask(order[:, None] >= order[None], self.model.dtype))
        self.model.settle(len(self._missing))
        return logits[-1:]

    def _feed(self, level: _LevelTensors) -> torch.Tensor:
        """`[m, vocab]` logits after the level's parents."""
        tokens = torch.cat(self._tokens)[level.parents]
        return self.model.append(tokens, level.offsets, level.tail)

    def _prepare(self, topology: Topology) -> _Prepared:
        if self._prepared is None or self._prepared.topology is not topology:
            self._prepared = _Prepared(topology, self.model)
        return self._prepared
