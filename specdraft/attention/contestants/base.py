"""What a contestant is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from specdraft.attention.problem import Problem

Attend = Callable[[], torch.Tensor]  # what is timed: `[B, H, N, D]`


def everywhere(problem: Problem) -> str:
    """No reason against any problem."""
    return ""


class Contestant(NamedTuple):
    """A way to compute tree attention.

    Attributes:
        name: of its rows.
        prepare: what is made once for a tree and a place in the text (masks, buffers, compiled code); what it returns
            is run once for each layer.
        why_not: why it cannot run on a problem; empty: it can.
        on_cpu: whether it runs on a processor unless it is asked for by name.
    """

    name: str
    prepare: Callable[[Problem], Attend]
    why_not: Callable[[Problem], str] = everywhere
    on_cpu: bool = True
