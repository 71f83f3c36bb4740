"""`specdraft bench attention`: ways to compute the attention of a tree step, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specdraft.commands.options import (
    AsJson,
    ConfigDir,
    Overrides,
    console,
    run_benchmark,
    say_while_loading,
)

if TYPE_CHECKING:
    from specdraft.bench.attention import AttentionRun


def bench_attention(
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option("--out", help="folder for the results")] = Path("results/attention"),
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Time tree attention over batch x context x draft nodes x tree shape, for the heads of real models.

    Each way to compute it is checked against a float32 reference; then they take turns. Axes are lists: batch=1,8
    context=512,8192 nodes=8,64 tree=chain,wide,medusa geometry=zoo,llama-3.2-1b. Others: contestants=dense,merged
    dtype=bfloat16 device=cpu max_s=4 (of a cell) total_s=60 max_rounds=30.
    """
    say_while_loading()
    from specdraft.bench.attention import AttentionRun
    from specdraft.bench.attention_plan import plan_attention

    plan = plan_attention(overrides or [], config_dir)
    run = AttentionRun(plan)
    run_benchmark(run, out, lambda: _write_and_show(run, out, as_json))


def _write_and_show(run: AttentionRun, folder: Path, as_json: bool) -> None:
    if not run.rows:
        return
    from specdraft.report.attention import AttentionReport
    from specdraft.report.words import plain
    from specdraft.viewer.attention_tables import attention_lines

    report = AttentionReport(run.table(), run.facts())
    report.write(folder)
    if as_json:
        typer.echo(report.json, nl=False)
        return
    for part in attention_lines(report.title, report.rows, list(map(plain, report.findings))):
        console().print(part, highlight=False)
    console().print(f"{folder}: written", markup=False, highlight=False, soft_wrap=True)
