"""`specdraft theory`: the closed forms, of numbers or of a pair."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdraft.commands.options import AsJson, ConfigDir, Overrides, console, shown_progress
from specdraft.errors import UserError

if TYPE_CHECKING:
    pass


def theory(
    overrides: Overrides = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="chance that a draft token is accepted")] = None,
    gamma: Annotated[int | None, typer.Option("--gamma", help="length of the chain")] = None,
    cost: Annotated[
        float | None, typer.Option("--cost", help="time of a draft step over a target step (default 0)")
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the closed forms of speculative decoding.

    For numbers: --alpha A --gamma G --cost C. For a pair, beside what it does: overrides.
    """
    from specdraft.viewer.theory_tables import formula_tables, prediction_tables

    if alpha is None and (gamma, cost) != (None, None):
        raise UserError("--gamma and --cost need --alpha; without it those of a pair are measured")
    if alpha is not None:
        if overrides:
            raise UserError(f"--alpha is for numbers alone; it does not go with {overrides[0]!r}")
        if gamma is None:
            raise UserError("--alpha needs --gamma, the length of the chain")
        from specdraft.theory.formulas import facts

        results: dict[str, Any] = facts(alpha, gamma, cost or 0.0)
        shown = formula_tables(results)
    else:
        from specdraft.theory.prediction import predict

        with shown_progress(console(stderr=True)) as progress:
            prediction = predict(overrides or [], config_dir, progress)
        results, shown = prediction.as_dict(), prediction_tables(prediction)
    if as_json:
        typer.echo(json.dumps(results))
        return
    for part in shown:
        console().print(part)
