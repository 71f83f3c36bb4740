"""`specdraft reconcile`: another engine's figures in our terms, beside a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import SOME_FAILED, AsJson, console


def reconcile(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="what an engine or a benchmark wrote")],
    wanted: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="which row: tree=chain budget=4", show_default=False),
    ] = None,
    study: Annotated[
        list[Path] | None,
        typer.Option("--study", metavar="DIR", help="a results folder; a second one: the same pair measured otherwise"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What another engine's figures mean, and what they are in the columns here.

    Reads vLLM's counters, logs, benchmark and records, SGLang's, llama.cpp's, AIPerf's, Spec-Bench's and EAGLE's, and
    golden files (exit code 3 where a row left its interval). With --study it is set beside a row, and each possible
    reason of a difference is computed.
    """
    from specdraft.exchange.golden import INSIDE, is_golden
    from specdraft.exchange.reconcile import golden
    from specdraft.exchange.reconcile import reconcile as reconcile_file
    from specdraft.exchange.source import read_foreign
    from specdraft.viewer.exchange_tables import as_data, golden_data, golden_parts, reconciled_parts

    source = read_foreign(file)
    if is_golden(source):
        held = golden(source, study or [], wanted or [])
        parts, data = golden_parts(held), golden_data(held)
    else:
        held = []
        found = reconcile_file(source, study or [], wanted or [])
        parts, data = reconciled_parts(found), as_data(found)
    if as_json:
        typer.echo(json.dumps(data))
    else:
        for part in parts:
            console().print(part, soft_wrap=not hasattr(part, "columns"), highlight=False)
    if any(one.verdict != INSIDE for one in held):
        raise typer.Exit(SOME_FAILED)
