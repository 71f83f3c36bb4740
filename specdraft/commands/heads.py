"""`specdraft heads`: weights of heads from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import AsJson, say

app = typer.Typer(no_args_is_help=True, help="Import heads that others trained.")


@app.callback()
def heads() -> None:
    """Heads that others trained."""


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="the authors' pickle, such as medusa_lm_head.pt")],
    out: Annotated[Path, typer.Option("--out", help="the folder to write, for drafter=medusa drafter.path=DIR")],
    as_json: AsJson = False,
) -> None:
    """Write Medusa heads out of a pickle as safetensors; whatever in it is more than tensors is refused, not run."""
    from specdraft.training.imported_heads import import_heads

    made = import_heads(file.expanduser(), out.expanduser())
    if as_json:
        typer.echo(json.dumps(made.as_dict()))
        return
    output = f"output layers of {made.rows:,} ids" if made.rows else "the target's output layer"
    typer.echo(f"{made.heads} heads of {made.blocks} blocks, width {made.width}, {output}, {made.dtype}")
    say(f"{out}: written; use: specdraft sweep drafter=medusa drafter.path={out} drafter.heads={made.heads}")
