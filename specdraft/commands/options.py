"""What commands share: options, exit codes, where text goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from specdraft.bench.attention import AttentionRun
    from specdraft.study.methods import MethodsRun
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


def run_benchmark(run: AttentionRun | MethodsRun, folder: Path, write: Callable[[], None]) -> None:
    """Run in a folder that nobody else writes into; what was measured is written, however it ends.

    Raises:
        ResultsError: the folder cannot be written, or another one writes there.
        typer.Exit: something of it failed.
    """
    from specdraft.results.locks import locked

    with locked(folder, "benchmark"):
        try:
            with shown_progress(console(stderr=True)) as progress:
                run.run(progress)
        finally:
            write()
    if run.failed:
        raise typer.Exit(SOME_FAILED)


def say_while_loading() -> None:
    """A line before the libraries are imported that take seconds; nothing where they are there already."""
    if "transformers" not in sys.modules:
        say("loading libraries ...")


def say(what: str) -> None:
    """A line for people while stdout carries results."""
    typer.echo(what, err=True)
