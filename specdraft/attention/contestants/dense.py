"""One call with a dense additive mask, as `transformers` does it: keys and values are repeated for the heads that share
them, since a mask keeps it from `enable_gqa`."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.contestants.masks import additive
from specdraft.attention.problem import Problem


def prepare(problem: Problem) -> Attend:
    """The mask is made once."""
    mask = additive(problem.seen, problem.query.dtype)[None, None]

    def attend() -> torch.Tensor:
        keys, values = (_repeated(states, problem.group) for states in problem.states)
        return F.scaled_dot_product_attention(problem.query, keys, values, attn_mask=mask)

    return attend


def _repeated(states: torch.Tensor, times: int) -> torch.Tensor:
    """`[B, K, T, D]` -> `[B, H, T, D]`."""
    return states if times == 1 else states.repeat_interleave(times, dim=1)


DENSE = Contestant("dense", prepare)
