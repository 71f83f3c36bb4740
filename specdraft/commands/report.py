"""`specdraft report`: figures and a report from a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specdraft.errors import UserError


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="results folders; several make one page")],
    out: Annotated[
        Path | None, typer.Option("--out", help="the page's file; default: DIR/report.html, of several none")
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", help="some of html,md,png (default: all; with --out, by its ending)")
    ] = None,
    no_steps: Annotated[
        bool, typer.Option("--no-steps", help="leave out the steps of some prompts, which take traces and models")
    ] = False,
) -> None:
    """Turn a results folder into figures and a report, or several into one page.

    It works without a network. Models and traces that are here show the steps of some prompts; none are needed.
    """
    from specdraft.report.writing import parse_formats, write_report

    if len(folders) > 1:
        from specdraft.report.several import write_several

        if formats is not None:
            raise UserError("--format is for one study; a page of several is HTML or Markdown as --out ends")
        written = [write_several(folders, out)]
    else:
        written = write_report(folders[0], out, parse_formats(formats, out), steps=not no_steps)
    for path in written:
        typer.echo(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")
