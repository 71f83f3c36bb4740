"""What a study of a real model costs, stage by stage, beside what `transformers` takes to generate the same texts.

    python scripts/bench_real.py --target DIR --draft DIR[,DIR...] [--out results/smollm2]

The study: chain, k-ary, sequoia, best-first and medusa trees of 4, 16 and 64 nodes on 16 bundled prompts, 64 new tokens
each. It runs with an empty trace store, in a process of its own. The measure that it is held against runs in another
one: the texts generated greedily in batches of 16 by `transformers`, then read once by every drafter, as annotating
does; and, at the rate of reading with the logits of every token, as many tokens as best-first trees of 64 nodes at
every position have. All seconds are of one machine in one run, by the wall clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

PROMPTS, NEW_TOKENS, BATCH, NODES, ALLOWED = 16, 64, 16, 64, 2.5
GRID = ["tree=chain,kary,sequoia,best_first,medusa", "budget=4,16,64", f"max_new_tokens={NEW_TOKENS}"]
SWEEP = "from specdraft.cli import main; main()"


class Spent(NamedTuple):
    """What a process used up."""

    wall_s: float
    processor_s: float
    peak_mib: float


def spend(command: list[str], environment: dict[str, str]) -> Spent:
    """Run a command to its end; exits where it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | environment, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command[:4])} ... ended with {code}")
    size = 2**20 if sys.platform == "darwin" else 2**10
    return Spent(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / size)


def generate_and_read(target: str, drafts: list[str]) -> dict[str, float]:
    """Seconds of generating the texts in batches, and of each drafter reading them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from specdraft.drafters import Model
    from specdraft.drafters.pair import find_pair
    from specdraft.models.spec import ModelSpec, PairSpec
    from specdraft.prompts import PromptSpec, load_prompts

    files = find_pair(PairSpec("x", ModelSpec(target), ModelSpec(drafts[0])), Model())
    ids = [files.encode(prompt.text) for prompt in load_prompts(PromptSpec(limit=PROMPTS))]
    tokenizer = AutoTokenizer.from_pretrained(target, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    seconds, texts = {}, []
    with torch.inference_mode():
        model(torch.tensor([ids[0][:8]]))  # warm
        began = time.perf_counter()
        for start in range(0, len(ids), BATCH):
            batch = tokenizer.pad({"input_ids": ids[start : start + BATCH]}, return_tensors="pt")
            texts.append(model.generate(**batch, do_sample=False, max_new_tokens=NEW_TOKENS))
        seconds["generate"] = time.perf_counter() - began
        for draft in drafts:
            reader = AutoModelForCausalLM.from_pretrained(draft, dtype=torch.float32)
            began = time.perf_counter()
            for text in texts:
                reader(text, logits_to_keep=NEW_TOKENS)
            seconds[f"read with {Path(draft).name}"] = time.perf_counter() - began
            began = time.perf_counter()
            for text in texts:
                for some in text.split(4):  # a node of a tree needs the logits after it, so here every token's are made
                    reader(some)
            per_token = (time.perf_counter() - began) / sum(text.numel() for text in texts)
            seconds[f"read {NODES} nodes a position with {Path(draft).name} (from that rate)"] = (
                per_token * NODES * PROMPTS * NEW_TOKENS
            )
    return seconds


def report(study: Spent, stages: dict[str, float], reference: dict[str, float], console: Console) -> None:
    """The table, and the ratio that is to be kept."""
    table = Table("", "s", title=f"{PROMPTS} prompts x {NEW_TOKENS} tokens")
    for name, seconds in [*stages.items(), ("the whole study", study.wall_s), *reference.items()]:
        table.add_row(name, f"{seconds:.1f}")
    console.print(table)
    trees = sum(seconds for name, seconds in reference.items() if f"{NODES} nodes" in name)
    rest = sum(reference.values()) - trees
    ratios = {
        "without best-first trees: study / (generate + read)": (study.wall_s - stages.get("expand", 0.0)) / rest,
        "best-first trees / reading as many tokens": stages.get("expand", 0.0) / trees,
        "all: study / (generate + read + read as many)": study.wall_s / (rest + trees),
    }
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f} (at most {ALLOWED})")
    console.print(f"peak memory {study.peak_mib:.0f} MiB")


def main(
    target: Annotated[str, typer.Option(help="the target's folder")],
    draft: Annotated[str, typer.Option(help="folders of its drafters, with commas between them")],
    out: Annotated[Path | None, typer.Option(help="where the study is kept")] = None,
    reference_only: Annotated[bool, typer.Option("--reference-only", hidden=True)] = False,
) -> None:
    drafts = draft.split(",")
    if reference_only:
        print(json.dumps(generate_and_read(target, drafts)))
        return
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        where = out or Path(folder) / "study"
        models = [f"pair.target.path={target}", f"pair.draft.path={draft}", f"prompts.limit={PROMPTS}", "name=smollm2"]
        sweep = [sys.executable, "-c", SWEEP, "sweep", *models, *GRID, "--out", str(where), "--fresh"]
        study = spend(sweep, {"SPECDRAFT_TRACES": f"{folder}/traces"})
        manifest: dict[str, Any] = json.loads((where / "manifest.json").read_text(encoding="utf-8"))
        this = [sys.executable, __file__, "--target", target, "--draft", draft, "--reference-only"]
        done = subprocess.run(this, check=True, capture_output=True, text=True)
        reference: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    stages: dict[str, float] = {}
    for of_pair in manifest["stages_s"].values():
        for name, seconds in of_pair.items():
            stages[name] = stages.get(name, 0.0) + seconds
    report(study, stages, reference, console)
    if out:
        figures = {"study": study._asdict(), "stages_s": stages, "reference_s": reference}
        (out / "bench_real.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
