"""Which commands there are."""

from __future__ import annotations

from typing import Annotated

import typer

from specdraft.commands import (
    bench,
    certify,
    compare,
    doctor,
    export,
    fit,
    generate,
    heads,
    help_topics,
    reconcile,
    report,
    status,
    sweep,
    theory,
    traces,
    train,
    trees,
    tune,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How many draft tokens does each draft-tree shape get accepted, at each node budget, and what is that "
    "worth in time? More: specdraft help",
)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False) -> None:
    """Options that go before the command."""


for command in (
    sweep.sweep,
    generate.generate,
    generate.replay,
    report.report,
    compare.compare,
    status.status,
    theory.theory,
    certify.certify,
    doctor.doctor,
    tune.tune,
    reconcile.reconcile,
    export.export,
):
    app.command()(command)
app.command("help")(help_topics.show_help)
app.add_typer(trees.app, name="trees")
app.add_typer(traces.app, name="traces")
app.add_typer(fit.app, name="fit")
app.add_typer(train.app, name="train")
app.add_typer(bench.app, name="bench")
app.add_typer(heads.app, name="heads")
