"""`specdraft traces`: recorded trajectories."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from specdraft.commands.options import AsJson, console
from specdraft.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Recorded trajectories, which replayed sweeps share.")


@app.command("list")
def traces_list(as_json: AsJson = False) -> None:
    """Every recorded trace."""
    from rich.table import Table

    from specdraft.traces.store import TraceStore, default_folder

    traces = list(TraceStore(default_folder()).list())
    if as_json:
        typer.echo(json.dumps([{"key": t.key, "size_bytes": t.size_bytes, "about": t.about} for t in traces]))
        return
    table = Table("key", "kind", "weights", "KiB")
    for trace in traces:
        weights = [trace.about[role]["weights"] for role in ("target", "draft") if role in trace.about]
        table.add_row(trace.key, trace.about["kind"], " ".join(weights), f"{trace.size_bytes / 1024:.1f}")
    console().print(table)
    typer.echo(f"{len(traces)} traces, {sum(t.size_bytes for t in traces) / 2**20:.1f} MiB in {default_folder()}")


@app.command("show")
def traces_show(key: Annotated[str, typer.Argument(help="a key, or the beginning of one")]) -> None:
    """What one trace depends on, as JSON."""
    from specdraft.traces.store import TraceStore, default_folder

    trace = TraceStore(default_folder()).find(key)
    typer.echo(json.dumps({"key": trace.key, "size_bytes": trace.size_bytes, "about": trace.about}, indent=1))


@app.command("rm")
def traces_rm(
    keys: Annotated[list[str] | None, typer.Argument(help="keys, or beginnings of them")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every trace")] = False,
) -> None:
    """Delete traces; a study that needs them records them again."""
    from specdraft.traces.store import TraceStore, default_folder

    if bool(keys) == everything:
        raise UserError("traces rm needs keys, or --all")
    store = TraceStore(default_folder())
    full_keys = {trace.key for trace in (store.list() if everything else map(store.find, keys or []))}
    for key in full_keys:
        store.remove(key)
    if everything:
        store.sweep_up()
    typer.echo(f"{len(full_keys)} traces deleted")
