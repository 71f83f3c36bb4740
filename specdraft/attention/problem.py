"""What every contestant computes, and what it should be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log, sqrt
from typing import NamedTuple

import torch

from specdraft.attention.geometry import Geometry
from specdraft.trees.topology import Topology

ROOT_ALONE = Topology([-1])


class States(NamedTuple):
    """`[B, K, L, D]` each, of the same L places."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class Problem:
    """Attention of one tree step.

    Attributes:
        query: `[B, H, N, D]` of the root and the draft nodes, in the tree's order.
        keys, values: `[B, K, T, D]`: of the prefix, then of the root and the draft nodes.
        tree: who is whose ancestor; the same tree for the whole batch.
    """

    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    tree: Topology

    @property
    def batch(self) -> int:
        return self.query.shape[0]

    @property
    def heads(self) -> int:
        return self.query.shape[1]

    @property
    def nodes(self) -> int:
        """N: the root is counted."""
        return self.query.shape[2]

    @property
    def head_dim(self) -> int:
        return self.query.shape[3]

    @property
    def kv_heads(self) -> int:
        return self.keys.shape[1]

    @property
    def group(self) -> int:
        """G."""
        return self.heads // self.kv_heads

    @property
    def context(self) -> int:
        """S."""
        return self.keys.shape[2] - self.nodes

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        return 1 / sqrt(self.head_dim)

    @property
    def device(self) -> torch.device:
        return self.query.device

    @property
    def states(self) -> States:
        """Of the prefix and the tree."""
        return States(self.keys, self.values)

    @property
    def prefix(self) -> States:
        """L = S of them."""
        return States(self.keys[:, :, : self.context], self.values[:, :, : self.context])

    @property
    def tail(self) -> States:
        """The last N, of the root and the draft nodes."""
        return States(self.keys[:, :, self.context :], self.values[:, :, self.context :])

    @cached_property
    def ancestors(self) -> torch.Tensor:
        """`[N, N]` bool: row i is true at i's ancestors and at i itself."""
        return torch.from_numpy(self.tree.ancestors).to(self.device)

    @cached_property
    def seen(self) -> torch.Tensor:
        """`[N, T]` bool: what each query sees."""
        prefix = torch.ones(self.nodes, self.context, dtype=torch.bool, device=self.device)
        return torch.cat([prefix, self.ancestors], dim=1)

    @cached_property
    def grouped_query(self) -> torch.Tensor:
        """`[B, K, G * N, D]`: queries that share keys, one below the other; a view where `query` is contiguous."""
        return self.query.reshape(self.batch, self.kv_heads, self.group * self.nodes, self.head_dim)

    def ungrouped(self, rows: torch.Tensor) -> torch.Tensor:
        """`[B, H, N, D]` of what was computed for `grouped_query`."""
        return rows.reshape(self.query.shape)

    @property
    def root_alone(self) -> Problem:
        """One step of plain decoding at the same place: the root's query over the prefix and itself."""
        end = self.context + 1
        return Problem(self.query[:, :, :1].contiguous(), self.keys[:, :, :end], self.values[:, :, :end], ROOT_ALONE)


def make_problem(
    geometry: Geometry,
    batch: int,
    context: int,
    tree: Topology,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Problem:
    """Random queries, keys and values.

    A node of the tail weighs as much as a quarter of the prefix, however long that is: otherwise a wrong mask would
    move the output of a long context by less than rounding does.
    """
    generator = torch.Generator(device).manual_seed(seed)
    heads, kv_heads, head_dim = geometry

    def normal(count: int, length: int) -> torch.Tensor:
        shape = (batch, count, length, head_dim)
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)

    query, keys, values = (normal(count, length) for count, length in _lengths(heads, kv_heads, context, len(tree)))
    query[..., 0], keys[..., 0] = 1, 0
    keys[:, :, context:, 0] = log(max(context / 4, 1)) * head_dim**0.5
    return Problem(query, keys, values, tree)


def _lengths(heads: int, kv_heads: int, context: int, nodes: int) -> list[tuple[int, int]]:
    return [(heads, nodes), (kv_heads, context + nodes), (kv_heads, context + nodes)]


def needed_bytes(geometry: Geometry, batch: int, context: int, nodes: int, element: int) -> int:
    """Memory of a problem of N = `nodes`, its reference, and a copy of keys and values for every head (`dense`)."""
    heads, kv_heads, head_dim = geometry
    row = (context + nodes) * head_dim
    reference = 4 * (2 * kv_heads * row + 3 * heads * nodes * (context + nodes))
    return 2 * batch * row * (2 * kv_heads + heads) * element + reference


def moved_bytes(problem: Problem) -> int:
    """What has to be read and written at least: keys and values once for all that share them, queries, outputs."""
    keys = 2 * problem.keys.numel() + 2 * problem.query.numel()
    return keys * problem.query.element_size()


def reference(problem: Problem) -> torch.Tensor:
    """`[B, H, N, D]` float32, as attention is written down, one text of the batch at a time."""
    rows = []
    for query, keys, values in zip(problem.query, problem.keys, problem.values, strict=True):
        grouped = query.float().unflatten(0, (problem.kv_heads, problem.group))
        scores = torch.einsum("kgnd,ktd->kgnt", grouped, keys.float()) * problem.scale
        weights = scores.masked_fill(~problem.seen, -torch.inf).softmax(dim=-1)
        rows.append(torch.einsum("kgnt,ktd->kgnd", weights, values.float()).flatten(0, 1))
    return torch.stack(rows)


def worst_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest distance of one query's output from what it should be, as a share of its length.

    Args:
        output, expected: `[B, H, N, D]`.
    """
    distance = (output.float() - expected).norm(dim=-1) / expected.norm(dim=-1)
    return float(distance.nan_to_num(torch.inf).max())
