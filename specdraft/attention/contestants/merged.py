"""The prefix without a mask, read once for all nodes and all heads that share it; the tail with its small mask; both
merged by their log-sum-exps. Public library calls only.

    o = (w1 o1 + w2 o2) / (w1 + w2) with wi = exp(li - max(l1, l2))
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.contestants.masks import additive
from specdraft.attention.problem import Problem, States


class Part(NamedTuple):
    """Attention over some of the keys: `[..., rows, D]` outputs and `[..., rows, 1]` log-sum-exps of the scores."""

    output: torch.Tensor
    log_sum: torch.Tensor


def prepare(problem: Problem) -> Attend:
    """The tail's mask is made once."""
    mask = additive(problem.ancestors, torch.float32).repeat(problem.group, 1)  # [G * N, N]
    flash = _Flash(problem) if problem.context and problem.device.type == "cuda" else None

    def attend() -> torch.Tensor:
        query = problem.grouped_query
        parts = [attend_part(query, *problem.tail, problem.scale, mask)]
        if problem.context:
            parts.append(flash.attend(query) if flash else attend_part(query, *problem.prefix, problem.scale))
        return problem.ungrouped(merge(parts)).to(problem.query.dtype)

    return attend


def attend_part(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, mask: torch.Tensor | None = None
) -> Part:
    """By two products in float32. What lies between them is done in place: the scores are the largest of all.

    Args:
        query: `[B, K, rows, D]`.
        keys, values: `[B, K, L, D]`.
        scale: of the scores.
        mask: `[rows, L]`, additive.
    """
    scores = (query.float() * scale) @ keys.float().mT
    if mask is not None:
        scores += mask
    top = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    return Part((weights @ values.float()).div_(total), top + total.log())


def merge(parts: list[Part]) -> torch.Tensor:
    """Attention over the keys of one part, or of two."""
    if len(parts) == 1:
        return parts[0].output
    first, second = parts
    share = torch.sigmoid(first.log_sum - second.log_sum)  # w1 / (w1 + w2)
    return torch.lerp(second.output.float(), first.output.float(), share)


class _Flash:
    """The prefix by `varlen_attn`, its heads the key-value heads: rows that share keys are queries of one sequence."""

    def __init__(self, problem: Problem) -> None:
        self._rows, self._kv_heads = problem.group * problem.nodes, problem.kv_heads
        of_queries, of_keys = (
            torch.arange(problem.batch + 1, dtype=torch.int32, device=problem.device) * length
            for length in (self._rows, problem.context)
        )
        self._ends, self._context = (of_queries, of_keys), problem.context
        self._states = States(
            *(s.transpose(1, 2).flatten(0, 1) for s in problem.prefix)
        )  # [B * S, K, D]: as engines do

    def attend(self, query: torch.Tensor) -> Part:
        """As `attend_part`."""
        from torch.nn.attention.varlen import AuxRequest, varlen_attn

        packed = query.transpose(1, 2).flatten(0, 1)  # [B * rows, K, D]
        lengths = self._rows, self._context
        output, log_sum = varlen_attn(packed, *self._states, *self._ends, *lengths, return_aux=AuxRequest(lse=True))
        by_head = log_sum if log_sum.shape[0] == self._kv_heads else log_sum.T  # documented the other way round
        log_sums = by_head.reshape(self._kv_heads, -1, self._rows).transpose(0, 1)  # [B, K, rows]
        return Part(output.reshape(-1, self._rows, *output.shape[1:]).transpose(1, 2), log_sums[..., None])


def why_not(problem: Problem) -> str:
    """Flash attention has no float32."""
    if problem.device.type == "cuda" and problem.query.dtype == torch.float32:
        return "on a GPU it needs dtype=bfloat16 or float16"
    return ""


MERGED = Contestant("merged", prepare, why_not)
