"""What the fitted temperature is worth to best-first trees: tokens per step beside raw scores and Sequoia's trees.

    python scripts/bench_calibrated.py [--sampled] [--out results/prediction]

Every bundled pair and budget, all bundled prompts; each half of the prompts is scored with what was fitted on the other
one. Writes `trees.csv` (with `--sampled` `trees-sampled.csv`: temperature 1, acceptance=topk) and prints it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from specdraft.results.files import to_csv, write_atomically
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study

CALIBRATED, OTHERS = "best_first-calibrated", ("best_first", "sequoia")
GRID = [
    "name=trees",
    "pair=zoo,zoo-distilled,zoo-tiny",
    f"tree=chain,sequoia,best_first,{CALIBRATED}",
    "budget=1,2,4,8,16,32,64",
    "report=false",
    "cost.measure=off",
]
SAMPLED = ["sampling.temperature=1", "acceptance=topk"]
KEYS = ["pair", "budget", "tree"]
LENGTH = ["block_efficiency", "block_efficiency_lo", "block_efficiency_hi"]


def measured(overrides: list[str]) -> tuple[pd.DataFrame, dict[str, float]]:
    """A row per pair, budget and tree, with what the calibrated tree is ahead of it; and each pair's temperature."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_study(plan_study([*GRID, *overrides]), Path(folder, "study"))
        manifest = json.loads(Path(folder, "study", "manifest.json").read_text(encoding="utf-8"))
    summary = outcome.tables["summary.csv"][[*KEYS, *LENGTH]]
    table = summary.merge(_ahead(outcome.tables["comparisons.csv"]), how="left", on=KEYS)
    temperatures = {pair: next(iter(texts.values()))["value"] for pair, texts in manifest["calibrations"].items()}
    return table.assign(temperature=table["pair"].map(temperatures)), temperatures


def _ahead(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Calibrated minus the other tree, paired over prompts."""
    rows = comparisons[comparisons["metric"] == "block_efficiency"]
    ends = ["difference", "difference_lo", "difference_hi"]
    first = rows[rows["tree_a"] == CALIBRATED].rename(columns={"tree_b": "tree"})
    second = rows[rows["tree_b"] == CALIBRATED].rename(columns={"tree_a": "tree"})
    turned = second.assign(
        difference=-second["difference"],
        difference_lo=-second["difference_hi"],
        difference_hi=-second["difference_lo"],
    )
    both = pd.concat([first, turned])[[*KEYS, *ends]]
    return both.rename(columns={name: name.replace("difference", "calibrated_ahead") for name in ends})


def show(table: pd.DataFrame, console: Console) -> None:
    """Budgets down, trees across."""
    shown = Table("pair", "nodes", CALIBRATED, *(f"{tree}, and calibrated ahead of it" for tree in OTHERS))
    for key, rows in table.groupby(["pair", "budget"], sort=False):
        by_tree = rows.set_index("tree")
        cells = [f"{float(by_tree['block_efficiency'][CALIBRATED]):.2f}"]
        for tree in OTHERS:
            row = by_tree.loc[tree]
            ends = f"[{row['calibrated_ahead_lo']:+.2f}, {row['calibrated_ahead_hi']:+.2f}]"
            cells.append(f"{row['block_efficiency']:.2f}, {row['calibrated_ahead']:+.2f} {ends}")
        shown.add_row(*map(str, key), *cells)
    console.print(shown)


def main(
    sampled: Annotated[bool, typer.Option("--sampled", help="at temperature 1")] = False,
    out: Annotated[Path, typer.Option(help="folder of the table")] = Path("results/prediction"),
) -> None:
    table, temperatures = measured(SAMPLED if sampled else [])
    console = Console(width=160)
    show(table, console)
    console.print(f"temperatures: {temperatures}")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / f"trees{'-sampled' if sampled else ''}.csv", to_csv(table))


if __name__ == "__main__":
    typer.run(main)
