"""One call with a dense additive mask, told that heads share keys: they are read where they are, not repeated."""

from __future__ import annotations

import torch.nn.functional as F

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.contestants.masks import additive
from specdraft.attention.problem import Problem


def prepare(problem: Problem) -> Attend:
    """The mask is made once."""
    mask = additive(problem.seen, problem.query.dtype)[None, None]
    return lambda: F.scaled_dot_product_attention(problem.query, *problem.states, attn_mask=mask, enable_gqa=True)


def why_not(problem: Problem) -> str:
    """Where every head has keys of its own it is `dense`."""
    return "" if problem.group > 1 else "no heads share keys: it is dense"


GROUPED = Contestant("grouped", prepare, why_not)
