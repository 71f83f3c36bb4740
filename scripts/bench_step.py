"""Plain decoding and tree steps at the size of Llama-3.2-1B, with random weights: what a tree must yield to pay off.

    python scripts/bench_step.py OUT.json [--small]

Plain decoding and every tree take turns at each context: one forward, its logits on the host's side of the queue.
Weights are random (nothing is downloaded): times are those of the size, and nothing is accepted. Of plain decoding,
bytes of the weights a second say how near it is to the memory's bandwidth. `--small`: two thin layers, for a check.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import LlamaConfig, LlamaForCausalLM

from specdraft.bench.measuring import Timing
from specdraft.decoding.verifier import Verifier
from specdraft.models.cached_model import CachedModel
from specdraft.results.files import write_atomically
from specdraft.results.manifest import environment
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.published import Published
from specdraft.trees.shapes.wide import Wide

LLAMA_3_2_1B: dict[str, Any] = {
    "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131_072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}, "tie_word_embeddings": True,
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


def main(
    out: Annotated[Path, typer.Argument(help="a JSON file")],
    small: Annotated[bool, typer.Option("--small", help="two thin layers")] = False,
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = made(LLAMA_3_2_1B | (SMALL if small else {}), device)
    rows = [row for context in (SMALL_CONTEXTS if small else CONTEXTS) for row in at_context(model, context)]
    weights = sum(weight.numel() * weight.element_size() for weight in model.model.parameters())
    for row in rows:
        if row["step"] == "plain":
            row["weights_gb_s"] = weights / row["median_s"] / 1e9
        typer.echo(
            " ".join(
                f"{key}={value:.5g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
            )
        )
    facts = {"size": "small" if small else "llama-3.2-1b", "dtype": str(model.dtype), "weights_bytes": weights}
    write_atomically(out, json.dumps(facts | {"rows": rows, "environment": environment()}, indent=1) + "\n")


def made(config: dict[str, Any], device: torch.device) -> CachedModel:
    """A model with random weights, in bfloat16 on a GPU."""
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    return CachedModel(model.to(torch.bfloat16 if device.type == "cuda" else torch.float32), config["vocab_size"])


def at_context(model: CachedModel, context: int) -> list[dict[str, Any]]:
    """Rows of plain decoding and of every tree, in turns."""
    verifier, choose = Verifier(model), np.random.default_rng(0)
    verifier.prefill(choose.integers(0, model.vocab, context).tolist())

    def plain() -> None:
        model.extend(7)
        model.rewind(context)

    steps: dict[str, Callable[[], None]] = {"plain": plain}
    for name, topology in TREES.items():
        tree = DraftTree(topology, torch.from_numpy(choose.integers(0, model.vocab, len(topology))).to(model.device))
        steps[name] = verified(Verifier(model), tree)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARM + ROUNDS):
        for name, step in steps.items():
            taken = seconds_of(step, model.device)
            seconds[name] += [taken] if number >= WARM else []
    timings = {name: Timing.of(taken) for name, taken in seconds.items()}
    one = timings["plain"].median
    return [
        {
            "context": context,
            "step": name,
            "median_s": timing.median,
            "low_s": timing.low,
            "high_s": timing.high,
            "steps_per_s": 1 / timing.median,
            "price": timing.median / one,  # tokens that a step must yield to be as quick as plain decoding
        }
        for name, timing in timings.items()
    ]


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
