"""Plain decoding: one query, which sees all. What the price of a tree is counted in."""

from __future__ import annotations

import torch.nn.functional as F

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.problem import Problem


def prepare(problem: Problem) -> Attend:
    """Without a mask; heads that share keys are rows of one call, so that keys are read once."""
    return lambda: problem.ungrouped(F.scaled_dot_product_attention(problem.grouped_query, *problem.states))


def why_not(problem: Problem) -> str:
    """Only the root sees all."""
    return "" if problem.nodes == 1 else "it has no mask: one query only"


DECODE = Contestant("decode", prepare, why_not)
