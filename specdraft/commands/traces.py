"""`specdraft traces`: recorded trajectories."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdraft.commands.options import AsJson, console
from specdraft.errors import UserError

if TYPE_CHECKING:
    from specdraft.traces.store import StoredTrace

app = typer.Typer(no_args_is_help=True, help="List, show and delete recorded trajectories, which sweeps share.")


@app.command("list")
def traces_list(
    each: Annotated[bool, typer.Option("--each", help="a line for each trace, with its key")] = False,
    as_json: AsJson = False,
) -> None:
    """List what is recorded, of which models and prompts; --json has every trace."""
    from specdraft.traces.listing import describe_traces, group_traces
    from specdraft.traces.store import TraceStore, default_folder
    from specdraft.viewer.trace_tables import groups_table, traces_table

    store = TraceStore(default_folder())
    traces = list(store.list())
    if as_json:
        typer.echo(json.dumps([_as_data(trace) for trace in traces]))
        return
    if traces:
        console().print(traces_table(describe_traces(store)) if each else groups_table(group_traces(store)))
    typer.echo(f"{len(traces)} traces, {sum(t.size_bytes for t in traces) / 2**20:.1f} MiB in {default_folder()}")


def _as_data(trace: StoredTrace) -> dict[str, Any]:
    shown = {"key": trace.key, "size_bytes": trace.size_bytes, "written": round(trace.written)}
    return shown | {"labels": trace.labels, "about": trace.about}


@app.command("show")
def traces_show(key: Annotated[str, typer.Argument(help="a key, or the beginning of one")]) -> None:
    """Show what one trace depends on, as JSON."""
    from specdraft.traces.store import TraceStore, default_folder

    typer.echo(json.dumps(_as_data(TraceStore(default_folder()).find(key)), indent=1))


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
