"""What a large replayed study costs beside replay itself: processor time, memory and disk, traces being there.

    python scripts/bench_study.py [--large] [--largest] [--against DIR] [--out FILE.json]

The study: three bundled pairs, chain, kary, beam and wide trees at 96 budgets, with the reference trees
that stand beside them 1,440 combinations on 80 prompts. `--large` adds nine lengths of text, so 12,960 combinations
and a million rows; `--largest` takes ten times the prompts beside that, the bundled ones cut at ten places.
Each sweep runs in a process of its own, start-up, planning and tables included, the report left out; what has to be
recorded is recorded before, and not measured. `--against` runs another checkout too, in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import struct_rusage
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from specdraft.prompts import PromptSpec, load_prompts

PAIRS, TREES, BUDGETS = "pair=zoo,zoo-distilled,zoo-tiny", "tree=chain,kary,beam,wide", "budget=range(1,97)"
LENGTHS = "max_new_tokens=" + ",".join(map(str, range(16, 88, 8)))
CUTS = 10  # of a prompt, where there are to be many
SWEEP = "from specdraft.cli import main; main()"


class Cost(NamedTuple):
    """What one sweep took."""

    checkout: str
    combinations: int
    rows: int
    processor_s: float
    peak_mb: float
    beside_records_mb: float
    records_mb: float


def measured(checkout: Path, overrides: list[str], traces: Path, out: Path) -> Cost:
    """Run one sweep of a checkout; exits where it fails."""
    run_sweep(checkout, [*overrides, "budget=1,96"], traces, out / "recorded")
    usage = run_sweep(checkout, [*overrides, BUDGETS], traces, out / "study")
    sizes = {path: path.stat().st_size / 1e6 for path in (out / "study").rglob("*") if path.is_file()}
    records = sizes.pop(out / "study" / "records.csv")
    with (out / "study" / "records.csv").open(encoding="utf-8") as handle:
        rows = sum(1 for _ in handle) - 1
    combinations = json.loads((out / "study" / "manifest.json").read_text())["combinations"]
    seconds = usage.ru_utime + usage.ru_stime
    return Cost(checkout.name, combinations, rows, seconds, usage.ru_maxrss * 1024 / 1e6, sum(sizes.values()), records)


def cut_prompts(path: Path) -> Path:
    """Prompts in a file: the bundled ones, each cut at several places."""
    rows = []
    for prompt in load_prompts(PromptSpec()):
        words = prompt.text.split()
        for part in range(1, CUTS + 1):
            text = " ".join(words[: max(1, len(words) * part // CUTS)])
            rows.append({"question_id": f"{prompt.prompt_id}-{part}", "category": prompt.category, "prompt": text})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run_sweep(checkout: Path, overrides: list[str], traces: Path, out: Path) -> struct_rusage:
    """What a sweep used up, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "SPECDRAFT_TRACES": str(traces), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SWEEP, "sweep", *overrides, "name=bench", "report=false", "--out", str(out)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=traces)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{checkout}: the sweep ended with {os.waitstatus_to_exitcode(status)}")
    return usage


def main(
    large: Annotated[bool, typer.Option("--large", help="a million rows too")] = False,
    largest: Annotated[bool, typer.Option("--largest", help="ten million rows too")] = False,
    against: Annotated[Path | None, typer.Option(help="another checkout, which is measured too")] = None,
    out: Annotated[Path | None, typer.Option(help="also write the figures as JSON")] = None,
) -> None:
    studies = [[PAIRS, TREES], *([[PAIRS, TREES, LENGTHS]] if large else [])]
    checkouts = [path.resolve() for path in (against, Path(__file__).parents[1]) if path is not None]
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        if largest:
            studies.append([PAIRS, TREES, LENGTHS, f"prompts.path={cut_prompts(Path(folder, 'prompts.jsonl'))}"])
        for number, overrides in enumerate(studies):
            for checkout in checkouts:
                traces = Path(folder, checkout.name, "traces")
                traces.mkdir(parents=True, exist_ok=True)
                costs.append(measured(checkout, overrides, traces, Path(folder, checkout.name, str(number))))
    table = Table("checkout", "combinations", "rows", "user+sys, s", "peak, MB", "beside records, MB", "records, MB")
    for cost in costs:
        numbers = (f"{value:,.1f}" for value in cost[3:])
        table.add_row(cost.checkout, f"{cost.combinations:,}", f"{cost.rows:,}", *numbers)
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps([cost._asdict() for cost in costs], indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
