"""What commands share: options, exit codes, where text goes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from specdraft.study.progress import Progress

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Hydra overrides: pair=zoo tree=chain,kary budget=4,8", show_default=False)
]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", help="your own configs, searched before the bundled ones")
]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output on stdout")]
Html = Annotated[Path | None, typer.Option("--html", help="also write a page that shows the steps, without a network")]
Png = Annotated[Path | None, typer.Option("--png", help="also write one step's tree as a picture")]
Svg = Annotated[Path | None, typer.Option("--svg", help="the same as SVG")]
Dot = Annotated[Path | None, typer.Option("--dot", help="the same in Graphviz's language")]
StepNumber = Annotated[
    int | None, typer.Option("--step", help="which step: 1, 2, ...; left out: the one with the most accepted tokens")
]
NoLive = Annotated[bool, typer.Option("--no-live", help="print steps one after another, for logs")]

DONE, INTERNAL, USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


def console(stderr: bool = False) -> Console:
    """Where text for people goes."""
    from rich.console import Console

    return Console(stderr=stderr)


def shown_progress(console: Console) -> Progress:
    """A bar in a terminal, lines in a log."""
    from specdraft.viewer.progress import LogProgress, TerminalProgress

    return TerminalProgress(console) if console.is_terminal else LogProgress(console)


def say_while_loading() -> None:
    """A line before the libraries are imported that take seconds; nothing where they are there already."""
    if "transformers" not in sys.modules:
        say("loading libraries ...")


def say(what: str) -> None:
    """A line for people while stdout carries results."""
    typer.echo(what, err=True)
