"""`specdraft bench costs`: what drafting and verifying cost with a pair here, and how far to trust that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import AsJson, ConfigDir, Overrides, console, say_while_loading, shown_progress


def bench_costs(
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="write the table as JSON for cost.table=FILE; with --validate also a .csv"),
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="compare estimates with live decoding of 18 trees")
    ] = False,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Measure what drafting, verifying n tokens and plain decoding cost with a pair, and whether that is reliable.

    Overrides: pair, drafter, budget (of the largest tree; 64), threads, cost.context=512,8192 and cost.batch=1,8;
    with --validate also prompts and max_new_tokens.
    """
    say_while_loading()
    from specdraft.bench.cost_file import write_costs
    from specdraft.results.files import check_file_writable, to_csv, write_atomically
    from specdraft.study.cost_bench import plan_costs, run_costs
    from specdraft.viewer.cost_tables import cost_tables, validation_table

    if out is not None:
        check_file_writable(out, "--out", (".json",))
    plan = plan_costs(overrides or [], config_dir, validate)
    with shown_progress(console(stderr=True)) as progress:
        done = run_costs(plan, validate, progress)
    rows = done.validation
    if out is not None:
        write_costs(out, plan.files, done.curves)
        if rows is not None:
            write_atomically(out.with_suffix(".csv"), to_csv(rows).encode())
    if as_json:
        told = {"pair": done.pair, "costs": [curve.as_dict() | {"doubts": curve.doubts} for curve in done.curves]}
        checked = {} if rows is None else {"validation": rows.to_dict("records")}
        errors = {} if rows is None else {"mean_error": done.mean_error, "worst_error": done.worst_error}
        typer.echo(json.dumps(told | checked | errors))
        return
    for part in (part for curve in done.curves for part in cost_tables(done.pair, curve)):
        console().print(part, highlight=False)
    if rows is not None:
        console().print(validation_table(rows, done.mean_error, done.worst_error), highlight=False)
    if out is not None:
        console().print(f"{out}: written", markup=False, highlight=False, soft_wrap=True)
