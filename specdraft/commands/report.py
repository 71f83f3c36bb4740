"""`specdraft report`: figures and a report from a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a results folder")],
    out: Annotated[Path | None, typer.Option("--out", help="the page's file; default: DIR/report.html")] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="of html, md and png (default: all; with --out, what it ends in)")
    ] = None,
    no_steps: Annotated[
        bool, typer.Option("--no-steps", help="leave out the steps of some prompts, which take traces and models")
    ] = False,
) -> None:
    """Turn a results folder into figures and a report.

    It works without a network. Models and traces that are here show the steps of some prompts; none are needed.
    """
    from specdraft.report.writing import parse_formats, write_report

    for path in write_report(folder, out, parse_formats(formats, out), steps=not no_steps):
        typer.echo(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")
