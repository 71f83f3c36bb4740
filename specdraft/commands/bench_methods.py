"""`specdraft bench methods`: plain decoding against every way to draft, on one target."""

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
    from specdraft.study.methods import MethodsRun


def bench_methods(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="default: results/methods/<pair>")] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare ways to draft for one target: tokens per second, speed-up, acceptance, where the time goes.

    The methods are those of bench=methods, a file of configs/bench; bench.only=[NAME,...] takes some of them. Rounds
    repeat until timing alone leaves no speed-up wider than bench.width, at most bench.max_rounds or bench.max_s.
    """
    say_while_loading()
    from specdraft.study.method_plan import plan_methods
    from specdraft.study.methods import MethodsRun

    plan = plan_methods(overrides or [], config_dir)
    folder = out or Path("results") / "methods" / plan.target.spec.name
    run = MethodsRun(plan)
    run_benchmark(run, folder, lambda: _write_and_show(run, folder, as_json))


def _write_and_show(run: MethodsRun, folder: Path, as_json: bool) -> None:
    if not run.measured:
        return
    from specdraft.report.methods import MethodsReport
    from specdraft.viewer.method_tables import method_lines

    report = MethodsReport(run.tables(), run.facts())
    report.write(folder)
    if as_json:
        typer.echo(report.json, nl=False)
        return
    for part in method_lines(report.tables, report.facts):
        console().print(part, highlight=False)
    console().print(f"{folder}: written", markup=False, highlight=False, soft_wrap=True)
