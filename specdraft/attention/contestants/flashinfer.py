"""FlashInfer's prefill over ragged batches with a custom mask, where that package is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.problem import Problem

WORKSPACE = 256 * 2**20  # bytes that the library asks for


def prepare(problem: Problem) -> Attend:
    """The plan and the mask, which covers the prefix too, are made once."""
    library = import_module("flashinfer")
    workspace = torch.empty(WORKSPACE, dtype=torch.uint8, device=problem.device)
    wrapper = library.BatchPrefillWithRaggedKVCacheWrapper(workspace, "NHD")
    of_queries, of_keys = (
        torch.arange(problem.batch + 1, dtype=torch.int32, device=problem.device) * length
        for length in (problem.nodes, problem.context + problem.nodes)
    )
    wrapper.plan(
        of_queries,
        of_keys,
        problem.heads,
        problem.kv_heads,
        problem.head_dim,
        custom_mask=problem.seen.flatten().repeat(problem.batch),
        sm_scale=problem.scale,
        q_data_type=problem.query.dtype,
    )
    states = [s.transpose(1, 2).flatten(0, 1).contiguous() for s in (problem.query, *problem.states)]

    def attend() -> torch.Tensor:
        output: torch.Tensor = wrapper.run(*states)  # [B * N, H, D]
        return output.reshape(problem.batch, problem.nodes, *output.shape[1:]).transpose(1, 2)

    return attend


def why_not(problem: Problem) -> str:
    """It is for GPUs and 16-bit types, and an extra package."""
    if problem.device.type != "cuda":
        return "it needs a GPU"
    if problem.query.dtype == torch.float32:
        return "it needs dtype=bfloat16 or float16"
    return "" if find_spec("flashinfer") else "flashinfer is not installed"


FLASHINFER = Contestant("flashinfer", prepare, why_not, on_cpu=False)
