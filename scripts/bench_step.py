"""Plain decoding and tree steps at a real model's size, with random weights: what a tree must yield to pay off.

    python scripts/bench_step.py OUT.json [--size llama-3.2-1b] [--cache dynamic,static,graph]
                                 [--attention own,grouped,triton] [--small]

Plain decoding and every tree take turns at each context, in each cache and with each attention (see `attention` of a
model's spec): one forward, its logits on the host's side of the queue. Weights are random (nothing is downloaded):
times are those of the size, and nothing is accepted. Of plain decoding, bytes of the weights a second as a share of
what a large copy moves say how near it is to the memory's bandwidth. Making graphs is timed apart. `--small`: two thin
layers, for a check.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import LlamaConfig, LlamaForCausalLM

from specdraft.bench.attention_clock import clock_of, copy_gb_s
from specdraft.bench.measuring import Timing
from specdraft.decoding.verifier import Verifier
from specdraft.models.cached_model import CachedModel
from specdraft.models.caches import with_cache
from specdraft.models.graph_model import GraphModel
from specdraft.models.tree_attention import with_attention
from specdraft.results.files import write_atomically
from specdraft.results.manifest import environment
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.published import Published
from specdraft.trees.shapes.wide import Wide

ALL: dict[str, Any] = {
    "vocab_size": 128_256, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
                     "tie_word_embeddings": True},
    "llama-3.1-8b": {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "head_dim": 128,
                     "tie_word_embeddings": False},
    "smollm2-135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "head_dim": 64,
                     "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152,
                     "tie_word_embeddings": True},
}  # fmt: skip
SMALL = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}  # fmt: skip
CONTEXTS, SMALL_CONTEXTS = (512, 4096), (32,)
TREES = {
    "chain 8": Chain().at(8).topology,
    "chain 64": Chain().at(64).topology,
    "kary 64": Kary().at(64).topology,
    "wide 64": Wide().at(64).topology,
    "medusa 63": Published().at(63).topology,
}
ROUNDS, WARM = 20, 3
Kind = tuple[str, str]  # of cache, and of attention


def main(
    out: Annotated[Path, typer.Argument(help="a JSON file")],
    size: Annotated[str, typer.Option(help=f"one of {', '.join(SIZES)}")] = "llama-3.2-1b",
    cache: Annotated[str, typer.Option(help="of dynamic, static, graph")] = "dynamic",
    attention: Annotated[str, typer.Option(help="of own, grouped, triton")] = "own",
    small: Annotated[bool, typer.Option("--small", help="two thin layers")] = False,
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = made(ALL | SIZES[size] | (SMALL if small else {}), device)
    models = {kind: attending(model, kind) for kind in attention.split(",")}
    kinds = {(kind, how): with_cache(one, kind, size) for how, one in models.items() for kind in cache.split(",")}
    contexts = SMALL_CONTEXTS if small else CONTEXTS
    weights, copied = read_bytes(model), copy_gb_s(device, clock_of(device))
    rows: list[dict[str, Any]] = []
    for context in contexts:  # what is measured is kept, should there be no time for the next one
        rows += told(at_context(kinds, context), weights, copied)
        graphs = [kind for kind in kinds.values() if isinstance(kind, GraphModel)]
        facts = {
            "size": "small" if small else size,
            "dtype": str(model.dtype),
            "weights_bytes": weights,
            "copy_gb_s": copied,
            "graphs": sum(len(graph.made) for graph in graphs),
            "making_s": sum(graph.making_s for graph in graphs),
        }
        write_atomically(out, json.dumps(facts | {"rows": rows, "environment": environment()}, indent=1) + "\n")


def told(rows: list[dict[str, Any]], weights: int, copied: float) -> list[dict[str, Any]]:
    """Printed, those of plain decoding with their share of the bandwidth."""
    for row in rows:
        if row["step"] == "plain":
            row["weights_gb_s"] = weights / row["median_s"] / 1e9
            row["copy_share"] = row["weights_gb_s"] / copied
        typer.echo(
            " ".join(
                f"{key}={value:.5g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
            )
        )
    return rows


def made(config: dict[str, Any], device: torch.device) -> CachedModel:
    """A model with random weights, in bfloat16 on a GPU."""
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    return CachedModel(model.to(torch.bfloat16 if device.type == "cuda" else torch.float32), config["vocab_size"])


def attending(model: CachedModel, kind: str) -> CachedModel:
    """The same weights in a model whose layers attend in this way."""
    whole = model.model
    kept = {id(tensor): tensor for tensor in (*whole.parameters(), *whole.buffers())}
    return CachedModel(with_attention(copy.deepcopy(whole, kept), kind), model.vocab)


def read_bytes(model: CachedModel) -> int:
    """Of the weights that a step reads: of an embedding that is no output layer it reads a row."""
    embedding, head = model.model.get_input_embeddings().weight, model.model.get_output_embeddings().weight
    read: int = sum(weight.numel() * weight.element_size() for weight in model.model.parameters())
    return read if head is embedding else read - int(embedding.numel() * embedding.element_size())


def at_context(kinds: dict[Kind, CachedModel], context: int) -> list[dict[str, Any]]:
    """Rows of plain decoding and of every tree, in turns."""
    choose, steps = np.random.default_rng(0), dict[tuple[Kind, str], Callable[[], None]]()
    some = next(iter(kinds.values()))
    prompt = choose.integers(0, some.vocab, context).tolist()
    trees = {
        name: DraftTree(topology, torch.from_numpy(choose.integers(0, some.vocab, len(topology))).to(some.device))
        for name, topology in TREES.items()
    }
    for kind, model in kinds.items():
        model.reset()
        model.prefill(prompt)
        steps[kind, "plain"] = extended(model, context)
        steps |= {(kind, name): verified(Verifier(model), tree) for name, tree in trees.items()}
    seconds: dict[tuple[Kind, str], list[float]] = {named: [] for named in steps}
    for number in range(WARM + ROUNDS):
        for named, step in steps.items():
            taken = seconds_of(step, some.device)
            seconds[named] += [taken] if number >= WARM else []
    timings = {named: Timing.of(taken) for named, taken in seconds.items()}
    return [
        {
            "context": context,
            "cache": kind[0],
            "attention": kind[1],
            "step": name,
            "median_s": timing.median,
            "low_s": timing.low,
            "high_s": timing.high,
            "steps_per_s": 1 / timing.median,
            "price": timing.median / timings[kind, "plain"].median,  # tokens that it must yield to pay
        }
        for (kind, name), timing in timings.items()
    ]


def extended(model: CachedModel, context: int) -> Callable[[], None]:
    """A step of plain decoding; nothing of it stays in the cache."""

    def step() -> None:
        model.extend(7)
        model.rewind(context)

    return step


def verified(verifier: Verifier, tree: DraftTree) -> Callable[[], None]:
    """A tree's forward; nothing of it stays in the cache."""

    def step() -> None:
        verifier.verify(tree)
        verifier.model.forget(0)

    return step


def seconds_of(step: Callable[[], None], device: torch.device) -> float:
    """Of one step, until the device has done it."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
