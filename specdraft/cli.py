"""The command line: which commands there are, and which exit code an error has."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from specdraft.commands import certify, doctor, generate, report, sweep, theory, traces, trees
from specdraft.commands.options import INTERNAL, INTERRUPTED, USAGE
from specdraft.errors import UserError, plain_text

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How many draft tokens does each draft-tree shape get accepted, at each node budget, and what is that "
    "worth in time?",
)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False) -> None:
    """Options that go before the command."""


for command in (
    sweep.sweep,
    generate.generate,
    generate.replay,
    report.report,
    theory.theory,
    certify.certify,
    doctor.doctor,
):
    app.command()(command)
app.add_typer(trees.app, name="trees")
app.add_typer(traces.app, name="traces")


def main() -> None:
    """Run the command line with the exit codes that the README lists."""
    try:
        app()
    except (KeyboardInterrupt, SystemExit) as stop:  # typer turns the one into the other
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        typer.echo("interrupted; run the same command again to resume", err=True)
        sys.exit(INTERRUPTED)
    except UserError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        said = f"internal error: {type(error).__name__}: {error} (specdraft --debug shows where)"
        typer.echo(plain_text(said), err=True)
        sys.exit(INTERNAL)
