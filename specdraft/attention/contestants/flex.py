"""FlexAttention, compiled for one problem, its block mask made once."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.problem import Problem

MOST_DECODED = 127  # queries of the kernel that splits keys; with more the general one runs


def prepare(problem: Problem) -> Attend:
    """Compiles: seconds on a GPU, about 40 of them on a CPU."""
    torch.compiler.reset()  # each problem has its own code: kept ones of many sizes would meet torch's limit of them
    start, ancestors = problem.context, problem.ancestors

    def sees(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return (key < start) | ancestors[query, (key - start).clamp(min=0)]

    mask = create_block_mask(sees, None, None, problem.nodes, start + problem.nodes, device=problem.device)
    compiled = torch.compile(flex_attention, dynamic=False)

    def attend() -> torch.Tensor:
        output: torch.Tensor = compiled(problem.query, *problem.states, block_mask=mask, enable_gqa=problem.group > 1)
        return output

    return attend


def why_not(problem: Problem) -> str:
    """Its decoding kernel wants a power of two of heads that share keys."""
    if problem.nodes <= MOST_DECODED and problem.group & (problem.group - 1):
        return f"{problem.group} heads share keys; expected a power of two"
    return ""


FLEX = Contestant("flex", prepare, why_not, on_cpu=False)
