"""What recording costs: memory of a long prompt among short ones, best-first trees against plain reading, and the
best-first part of the default study.

    python scripts/bench_record.py [--against DIR] [--target DIR --draft DIR] [--prompts 80] [--out FILE.json]

Every figure comes from a process of its own, and seconds are of the processor (user + system). `--against` is another
checkout of this project, measured in the same run by turns. Without `--target` and `--draft` memory is that of the
bundled pair, whose texts are short; the folder of a real model says more.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

SHORT, LONG, SHORT_PROMPTS = 24, 1512, 7  # tokens of a short prompt and of the long one
NODES, NEW_TOKENS = 64, 64
PAIRS = ("zoo", "zoo-distilled", "zoo-tiny")
MOST_LOGITS = 2**25  # of a forward that reads only: a full batch that fits


def spent_s() -> float:
    """Seconds of the processor so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def load(pair: str, target: str, draft: str) -> Any:
    """A pair by its name, or one of two folders."""
    from specdraft import load_pair
    from specdraft.models.spec import ModelSpec, PairSpec

    return load_pair(PairSpec("mine", ModelSpec(target), ModelSpec(draft)) if target else pair)


def record(pair: Any, ids: dict[str, list[int]], folder: str) -> Any:
    """Trajectories and annotations in a fresh store: traces and store."""
    from specdraft.decoding import decode  # older checkouts have `Ending` there
    from specdraft.sampling.distribution import Sampling
    from specdraft.traces.library import pair_traces
    from specdraft.traces.store import TraceStore

    store = TraceStore(Path(folder))
    ending = decode.Ending(NEW_TOKENS, pair.eos_ids)  # type: ignore[attr-defined]
    return pair_traces(pair, ids, Sampling(), ending, store), store


def peak_mib(pair: Any, which: str) -> dict[str, float]:
    """The most memory that this process ever had, recording short prompts, a long one, or both."""
    limit = pair.files.context_length or LONG + NEW_TOKENS + NODES
    longest = min(LONG, limit - NEW_TOKENS - NODES)
    lengths = {"short": [SHORT] * SHORT_PROMPTS, "long": [longest], "together": [SHORT] * SHORT_PROMPTS + [longest]}
    words = range(5, min(pair.target.vocab, 2000))
    ids = {str(n): [words[(7 * n + i * i) % len(words)] for i in range(k)] for n, k in enumerate(lengths[which])}
    with tempfile.TemporaryDirectory() as folder:
        record(pair, ids, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mib": peak / (2**20 if sys.platform == "darwin" else 2**10)}


def _expansions(pair: Any, ids: dict[str, list[int]], traces: Any, plan: Any, store: Any) -> Any:
    """As this checkout or an older one takes it."""
    from inspect import signature

    from specdraft.traces.library import Expansions

    each = "plans" in signature(Expansions).parameters
    return Expansions(pair, ids, traces, dict.fromkeys(ids, plan) if each else plan, store)


def expansion(pair: Any, prompts: int) -> dict[str, float]:
    """Seconds of drafting best-first trees at every start, and of reading as many tokens in full batches."""
    import torch

    from specdraft.prompts import PromptSpec, load_prompts
    from specdraft.trees.shapes.best_first import BestFirst

    ids = {p.prompt_id: pair.encode(p.text) for p in load_prompts(PromptSpec(limit=prompts))}
    with tempfile.TemporaryDirectory() as folder:
        traces, store = record(pair, ids, folder)
        began = spent_s()
        _expansions(pair, ids, traces, BestFirst().at(NODES), store).record()
        grown_s = spent_s() - began
    nodes = NODES * sum(len(text.tokens) - 1 for text in traces.trajectories.values())
    model = pair.drafter.model
    width = max(1, min(2048, MOST_LOGITS // model.vocab) // 16)
    batch = torch.randint(model.vocab, (16, width), generator=torch.Generator().manual_seed(0)).to(model.device)
    times = min(16, -(-nodes // batch.numel()))
    with torch.inference_mode():
        model.forward(batch, use_cache=False)  # warm
        began = spent_s()
        for _ in range(times):
            model.forward(batch, use_cache=False)
    return {"grown_s": grown_s, "read_s": (spent_s() - began) * nodes / (times * batch.numel())}


def study_part(checkout: Path, pair: str, prompts: int) -> float:
    """Seconds that a checkout's own best-first trees add to its default study, which loads the models and records."""
    (grid,) = (
        line for line in (checkout / "configs" / "sweep.yaml").read_text().splitlines() if "  tree: chain," in line
    )
    (tree,) = (name for name in grid.split("tree: ")[1].split(",") if name.startswith("best_first"))
    with tempfile.TemporaryDirectory() as folder:

        def swept(shapes: str, limit: int, traces: str) -> float:
            environment = os.environ | {"PYTHONPATH": str(checkout), "SPECDRAFT_TRACES": f"{folder}/{traces}"}
            words = ["sweep", f"pair={pair}", f"tree={shapes}", f"prompts.limit={limit}", "report=false"]
            program = [sys.executable, "-c", "from specdraft.cli import main; main()"]
            began = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [*program, *words, "--out", f"{shapes}-{limit}"],
                env=environment, cwd=folder, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{checkout}: {done.stderr.strip().splitlines()[-1]}")
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

        swept("chain", 1, "with")  # costs are measured, which takes as long as it may
        shutil.copytree(f"{folder}/with", f"{folder}/without")
        without = swept("chain", prompts, "without")
        return swept(f"chain,{tree}", prompts, "with") - without


def measured(checkout: Path, *arguments: str) -> dict[str, float]:
    """One part in a process of its own, with the package of that checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def all_parts(checkout: Path, models: list[str], prompts: int, study: bool) -> dict[str, float]:
    """Every figure of one checkout."""
    peaks = {which: measured(checkout, "--part", which, *models)["mib"] for which in ("short", "long", "together")}
    figures = {f"peak MiB, {which}": peak for which, peak in peaks.items()}
    figures["together / apart (at most 1.2)"] = peaks["together"] / max(peaks["short"], peaks["long"])
    own = measured(checkout, "--part", "expansion", "--prompts", str(min(prompts, 8)), *models)
    figures[f"{NODES} nodes at every start / reading as many tokens (at most 2.5)"] = own["grown_s"] / own["read_s"]
    if study:
        figures["best-first part of the default study, s"] = sum(study_part(checkout, p, prompts) for p in PAIRS)
    return figures


def main(
    against: Annotated[Path | None, typer.Option(help="another checkout to compare with")] = None,
    target: Annotated[str, typer.Option(help="folder of a target for memory and the cost of trees")] = "",
    draft: Annotated[str, typer.Option(help="folder of its drafter")] = "",
    prompts: Annotated[int, typer.Option(help="bundled prompts of the study")] = 80,
    study: Annotated[bool, typer.Option(help="measure the best-first part of the default study")] = True,
    out: Annotated[Path | None, typer.Option(help="also write the figures as JSON")] = None,
    part: Annotated[str, typer.Option(hidden=True)] = "",
    pair: Annotated[str, typer.Option(hidden=True)] = "zoo",
) -> None:
    if part:
        loaded = load(pair, target, draft)
        print(json.dumps(expansion(loaded, prompts) if part == "expansion" else peak_mib(loaded, part)))
        return
    models = ["--target", target, "--draft", draft] if target else []
    checkouts = {"this": Path(__file__).parents[1]} | ({"other": against} if against else {})
    figures = {name: all_parts(folder, models, prompts, study) for name, folder in checkouts.items()}
    table = Table("", *figures, *(["this / other"] if against else []))
    for name, value in figures["this"].items():
        other = [figures["other"][name]] if against else []
        table.add_row(name, *(f"{v:,.2f}" for v in [value, *other]), *(f"{value / v:.2f}" for v in other))
    Console(width=120).print(table)
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
