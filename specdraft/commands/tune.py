"""`specdraft tune`: what an inference engine should be told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import AsJson, ConfigDir, Overrides, console, say, say_while_loading, shown_progress


def tune(
    engine: Annotated[str, typer.Option("--engine", help="sglang, vllm, tensorrt-llm or hf")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="default: results/tune-<pair>-<engine>")] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Find the drafter, tree and sizes that an inference engine is fastest with, or that it should not speculate.

    Everything that the engine can be told is replayed on the prompts, timed by this machine's costs or by
    cost.table=FILE, chosen on one half of the prompts and checked on the other. Writes what the engine reads, and the
    measured acceptance as synthetic acceptance.
    """
    say_while_loading()
    from specdraft.report.charts import write_charts
    from specdraft.report.tuned import speed_chart
    from specdraft.results.files import check_folder_writable, write_atomically
    from specdraft.study.tuning.engine_files import written_before
    from specdraft.study.tuning.tune import plan_tune, run_tune
    from specdraft.viewer.tune_tables import as_data, tune_tables

    plan = plan_tune(engine, overrides or [], config_dir)
    pair = next(iter(plan.combinations.values())).pair.spec.name
    folder = out or Path("results") / f"tune-{pair}-{engine}"
    check_folder_writable(folder)
    with shown_progress(console(stderr=True)) as progress:
        tuned = run_tune(plan, folder, progress)
    data = as_data(tuned)
    for name in written_before(folder) - set(tuned.files):
        (folder / name).unlink(missing_ok=True)
    for name, text in {**tuned.files, "tune.json": json.dumps(data, indent=1) + "\n"}.items():
        write_atomically(folder / name, text)
    write_charts(folder, {"speed-up": speed_chart(tuned)})
    if as_json:
        typer.echo(json.dumps(data))
        return
    for part in tune_tables(tuned):
        console().print(part, highlight=False)
    say(f"{folder}: {', '.join(sorted(tuned.files))}, tune.json and a figure written")
