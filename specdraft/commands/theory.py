"""`specdraft theory`: the closed forms, of numbers or of a pair."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from specdraft.commands.options import AsJson, ConfigDir, Overrides, console, shown_progress
from specdraft.errors import UserError


def theory(
    overrides: Overrides = None,
    alpha: Annotated[float | None, typer.Option("--alpha", help="chance that a draft token is accepted")] = None,
    gamma: Annotated[int | None, typer.Option("--gamma", help="length of the chain")] = None,
    cost: Annotated[
        float | None, typer.Option("--cost", help="time of a draft step over a target step (default 0)")
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", help="a published table beside the formula: t5 (Leviathan et al. 2023)")
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the closed forms of speculative decoding.

    For numbers: --alpha A --gamma G --cost C. For a pair, beside what it does: overrides. For what was published of
    T5-XXL with T5 small, base and large: --table t5.
    """
    from specdraft.viewer.theory_tables import formula_tables, prediction_tables, published_table

    if table is not None and (overrides or any(given is not None for given in (alpha, gamma, cost))):
        raise UserError("--table shows what was published; it goes with no other number and no override")
    if alpha is None and (gamma, cost) != (None, None):
        raise UserError("--gamma and --cost need --alpha; without it those of a pair are measured")
    if table is not None:
        from specdraft.theory.published import table as published

        rows = published(table)
        results: dict[str, Any] = {"table": table, "rows": [row.as_dict() for row in rows]}
        shown = published_table(rows)
    elif alpha is not None:
        if overrides:
            raise UserError(f"--alpha is for numbers alone; it does not go with {overrides[0]!r}")
        if gamma is None:
            raise UserError("--alpha needs --gamma, the length of the chain")
        from specdraft.theory.formulas import facts

        results = facts(alpha, gamma, cost or 0.0)
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
