"""Our own kernel (`attention.tree_decode`), where Triton is installed."""

from __future__ import annotations

from importlib.util import find_spec

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.problem import Problem


def prepare(problem: Problem) -> Attend:
    """The mask is packed into bits once."""
    from specdraft.attention.tree_decode import tail_of, tree_decode

    query, tail = problem.query.contiguous(), tail_of(problem.ancestors, problem.batch, problem.context)
    return lambda: tree_decode(query, problem.keys, problem.values, tail)


def why_not(problem: Problem) -> str:
    """It is for GPUs: the interpreter that tests it on a CPU says nothing of time."""
    if problem.device.type != "cuda":
        return "it needs a GPU"
    return "" if find_spec("triton") else "triton is not installed"


TRITON = Contestant("triton", prepare, why_not, on_cpu=False)
