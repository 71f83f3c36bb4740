"""`specdraft status`: how far a study is, from another terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import AsJson, console


def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a study's folder, whose sweep may be running")],
    as_json: AsJson = False,
) -> None:
    """What a sweep has done, what failed and what is left; it is not disturbed."""
    from specdraft.study.status import study_status
    from specdraft.viewer.status_lines import status_parts

    found = study_status(folder)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    for part in status_parts(found):
        console().print(part, soft_wrap=not hasattr(part, "columns"))
