"""`specdraft fit temperature`: what logits are divided by so that a drafter's probabilities are those of acceptance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import AsJson, ConfigDir, Overrides, console, say


def fit_temperature(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="also write it as JSON")] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Fit the temperature of a drafter's scores, for tree.scores=calibrated tree.temperature=T."""
    from rich.table import Table

    from specdraft.results.files import check_file_writable, write_atomically
    from specdraft.study.fitted_temperature import fit_on_prompts

    if out:
        check_file_writable(out, "--out")
    fitted = fit_on_prompts(overrides or [], config_dir, say)
    facts = fitted.as_dict()
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        table = Table("pair", "drafter", "fitted on", "temperature", "nats a token", "at temperature 1")
        for what, temperature in fitted.fits():
            numbers = (f"{temperature.value:g}", f"{temperature.loss:.3f}", f"{temperature.plain_loss:.3f}")
            table.add_row(facts["pair"], facts["drafter"], f"{what}: {temperature.tokens:,} tokens", *numbers)
        console().print(table)
    if out:
        write_atomically(out, json.dumps(facts, indent=1) + "\n")
        say(f"{out}: written")
