"""`specdraft fit`: what prediction needs, fitted to a pair; one file a command."""

from __future__ import annotations

import typer

from specdraft.commands.fit_alignment import fit_alignment
from specdraft.commands.fit_predictor import fit_predictor
from specdraft.commands.fit_temperature import fit_temperature

app = typer.Typer(no_args_is_help=True, help="Fit what predicts acceptance to a pair's texts.")
app.command("alignment")(fit_alignment)
app.command("temperature")(fit_temperature)
app.command("predictor")(fit_predictor)
