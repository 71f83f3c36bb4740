"""Every path a row of a batch: a batch instead of a tree. All rows look at the same keys (a view, no copy), each at the
prefix and its own path, so what paths share is computed once for each of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.contestants.masks import additive
from specdraft.attention.contestants.sequential import paths
from specdraft.attention.problem import Problem, States


def prepare(problem: Problem) -> Attend:
    """P paths of at most M nodes; shorter ones repeat their leaf."""
    deepest = problem.tree.depth + 1
    padded = [path + path[-1:] * (deepest - len(path)) for path in paths(problem.tree)]
    nodes = torch.tensor(padded, device=problem.device)  # [P, M]
    path_count, rows = len(padded), problem.group * deepest
    mask = additive(problem.seen[nodes], problem.query.dtype)  # [P, M, T]
    mask = mask.repeat(1, problem.group, 1)[:, None]  # [P, 1, G * M, T]
    views = States(*(s.flatten(0, 1).expand(path_count, -1, -1, -1) for s in problem.states))  # [P, B * K, T, D]
    output = torch.empty_like(problem.query)

    def attend() -> torch.Tensor:
        query = problem.query[:, :, nodes].movedim(2, 0)  # [P, B, H, M, D]
        query = query.reshape(path_count, -1, rows, problem.head_dim)
        done = F.scaled_dot_product_attention(query, *views, attn_mask=mask)
        done = done.reshape(path_count, problem.batch, problem.heads, deepest, problem.head_dim)
        output[:, :, nodes] = done.movedim(0, 2)
        return output

    return attend


EXPANDED = Contestant("expanded", prepare)
