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
        str | None, typer.Option("--format", help="some of html,md,png (default: all; with --out, by its ending)")
    ] = None,
) -> None:
    """Turn a results folder into figures and a report.

    It works without a network; no models are needed.
    """
    from specdraft.report.writing import parse_formats, write_report

    for path in write_report(folder, out, parse_formats(formats, out)):
        typer.echo(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")
