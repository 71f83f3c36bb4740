"""One call for each path from the root to a leaf, as if the candidates were verified one after another (SpecInfer,
Miao et al. 2024, figure 4, left): the path is written behind the prefix and attends causally."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.contestants.masks import additive
from specdraft.attention.problem import Problem, States
from specdraft.trees.topology import Topology


def paths(tree: Topology) -> list[list[int]]:
    """The nodes from the root to each leaf."""
    return [[0, *tree.path_to(leaf)] for leaf in np.flatnonzero(~tree.has_children).tolist()]


def prepare(problem: Problem) -> Attend:
    """The prefix lies in a cache with room for one path; what is timed copies each path's rows into it."""
    caches = States(problem.keys.clone(), problem.values.clone())
    branches = [_Branch(problem, caches, path) for path in paths(problem.tree)]
    output = torch.empty_like(problem.query)

    def attend() -> torch.Tensor:
        for branch in branches:
            output[:, :, branch.nodes] = branch.attend()
        return output

    return attend


class _Branch:
    """One path, of M nodes."""

    def __init__(self, problem: Problem, caches: States, path: list[int]) -> None:
        self._problem, self._start, end = problem, problem.context, problem.context + len(path)
        self.nodes = torch.tensor(path, device=problem.device)
        self._rows = self.nodes + self._start
        self._caches = States(caches.keys[:, :, :end], caches.values[:, :, :end])
        self._causal = causal_lower_right(len(path), end)
        seen = torch.ones(len(path), end, dtype=torch.bool, device=problem.device).tril(problem.context)
        self._mask = additive(seen, problem.query.dtype).repeat(problem.group, 1)[None, None]
        self._flash = problem.device.type == "cuda" and problem.query.dtype != torch.float32

    def attend(self) -> torch.Tensor:
        """`[B, H, M, D]`."""
        for cache, states in zip(self._caches, self._problem.states, strict=True):
            cache[:, :, self._start :] = states[:, :, self._rows]
        query = self._problem.query[:, :, self.nodes]
        if self._flash:  # without a mask: it splits the keys
            bias, gqa = self._causal, self._problem.group > 1
            return F.scaled_dot_product_attention(query, *self._caches, attn_mask=bias, enable_gqa=gqa)
        grouped = query.reshape(self._problem.batch, self._problem.kv_heads, -1, self._problem.head_dim)
        return F.scaled_dot_product_attention(grouped, *self._caches, attn_mask=self._mask).reshape(query.shape)


SEQUENTIAL = Contestant("sequential", prepare)
