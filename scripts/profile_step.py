"""Where the time of a decoding step goes: by kinds of operations, and what is left to Python and to launches.

    python scripts/profile_step.py [--pair zoo | --folder DIR] [--tree chain] [--budget 4] [--prompts 4]
                                   [--new-tokens 64] [--cache dynamic,static,graph] [--out FILE.json]

Texts are decoded three times in each cache: to make what is made once, for the time, and under torch's profiler, which
says how long each operation itself took (on a GPU: its kernels). The rest of the time that passed is Python's, and of
what calls operations. The profiler slows Python down, so shares are shares of a slower step; the step's own time is
measured without it.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from specdraft import SpeculativeDecoder, load_pair
from specdraft.drafters.pair import Pair, find_pair
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.results.files import write_atomically
from specdraft.results.manifest import environment
from specdraft.trees.shapes import registry

KERNELS = {  # kind -> what names of its kernels hold, on a GPU; the first kind that fits
    "linear layers": ("gemm", "gemv", "cutlass", "nvjet", "splitKreduce"),
    "attention": ("fmha", "flash", "softmax", "_attend", "_combine"),
    "choosing tokens": ("reduce", "sort", "topk", "gather", "index"),
    "caches": ("copy", "Memcpy", "scatter"),
    "masks and positions": ("arange", "fill", "Memset"),
}
KINDS = {  # kind -> how names of its operations begin; the first kind that fits
    "compiled code": ("## Call Compiled", "Torch-Compiled", "TorchDynamo", "Pregraph", "AOTDispatcher"),
    "linear layers": ("aten::mm", "aten::addmm", "aten::linear", "aten::matmul", "aten::bmm"),
    "attention": ("aten::_scaled_dot", "aten::scaled_dot", "aten::_softmax", "aten::_flash", "aten::_efficient"),
    "caches": ("aten::index_copy", "aten::copy_", "aten::clone", "aten::index_put", "aten::repeat_interleave"),
    "choosing tokens": ("aten::argmax", "aten::topk", "aten::sort", "aten::index", "aten::gather", "aten::log_softmax",
                        "aten::_log_softmax", "aten::item", "aten::_local_scalar"),
    "masks and positions": ("aten::constant_pad", "aten::pad", "aten::arange", "aten::masked_fill", "aten::fill_",
                            "aten::ones", "aten::zeros"),
}  # fmt: skip
OTHER, HOST = "norms, activations, rotary, views", "Python and launches"


class Profile(NamedTuple):
    """One cache: milliseconds of a step, and each kind's share of it."""

    step_ms: float
    shares: dict[str, float]


def kind_of(name: str) -> str:
    found = (kind for kind, starts in KINDS.items() if name.startswith(starts))
    return next(found, next((kind for kind, parts in KERNELS.items() if any(map(name.__contains__, parts))), OTHER))


def own_seconds(seen: Any, on_gpu: bool) -> Iterator[tuple[str, float]]:
    """Operations and what each itself took; on a GPU what its kernels did. Kernels are listed again by their own names,
    and replayed graphs have no others."""
    for row in seen.key_averages():
        if not on_gpu:
            yield row.key, row.self_cpu_time_total / 1e6
        elif row.device_type.name != "CPU":
            yield row.key, row.self_device_time_total / 1e6


def profiled(decoder: SpeculativeDecoder, prompts: list[list[int]], on_gpu: bool) -> Profile:
    """Of all steps; the prompt is read outside."""
    for ids in prompts:
        decoder.generate(ids)
    tallies = [decoder.generate(ids).tally for ids in prompts]
    steps = sum(tally.steps for tally in tallies)
    seconds = sum(tally.wall_s - tally.prefill_s for tally in tallies)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    spent, whole = defaultdict[str, float](float), 0.0
    for ids in prompts:
        with profile(activities=activities) as seen:
            started = time.perf_counter()
            decoder.generate(ids)
            whole += time.perf_counter() - started
        for name, seconds_of_it in own_seconds(seen, on_gpu):
            spent[kind_of(name)] += seconds_of_it
    shares = {kind: spent[kind] / whole for kind in (*KINDS, OTHER)}
    return Profile(1000 * seconds / steps, shares | {HOST: 1 - sum(shares.values())})


def found(pair: str, folder: Path | None) -> Pair:
    """A pair by its name, or one that was made."""
    if folder is None:
        return load_pair(pair)
    target, draft = (ModelSpec(str(folder / name)) for name in ("target", "draft"))
    return load_pair(find_pair(PairSpec(folder.name, target, draft)))


def main(
    pair: Annotated[str, typer.Option(help="a pair config")] = "zoo",
    folder: Annotated[Path | None, typer.Option(help="of scripts/make_layered_pair.py, instead of a pair")] = None,
    tree: Annotated[str, typer.Option(help="a tree shape")] = "chain",
    budget: Annotated[int, typer.Option(help="draft tokens of a step")] = 4,
    cache: Annotated[str, typer.Option(help="of dynamic, static, graph")] = "dynamic,graph",
    prompts: Annotated[int, typer.Option(help="how many bundled prompts")] = 4,
    new_tokens: Annotated[int, typer.Option(help="tokens per continuation")] = 64,
    out: Annotated[Path | None, typer.Option(help="also write the figures as JSON")] = None,
) -> None:
    loaded = found(pair, folder)
    texts = [loaded.encode(prompt.text) for prompt in load_prompts(PromptSpec(limit=prompts))]
    on_gpu = loaded.target.device.type == "cuda"
    profiles = {
        kind: profiled(SpeculativeDecoder(loaded, registry()[tree](), budget, new_tokens, cache=kind), texts, on_gpu)
        for kind in cache.split(",")
    }
    where = f"{prompts} prompts x {new_tokens} tokens, {torch.get_num_threads()} threads"
    title = f"{loaded.label}, {tree} of {budget}: {where}"
    table = Table("share of a step", *profiles, title=title)
    table.add_row("milliseconds of a step", *(f"{one.step_ms:.2f}" for one in profiles.values()))
    for kind in (*KINDS, OTHER, HOST):
        table.add_row(kind, *(f"{one.shares[kind]:.0%}" for one in profiles.values()))
    Console().print(table)
    if out is not None:
        facts: dict[str, Any] = {
            "pair": loaded.label,
            "tree": tree,
            "budget": budget,
            "threads": torch.get_num_threads(),
        }
        told = {kind: one._asdict() for kind, one in profiles.items()}
        write_atomically(out, json.dumps(facts | {"profiles": told, "environment": environment()}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
