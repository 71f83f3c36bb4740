"""`specdraft fit alignment`: the target's states as an affine function of the draft model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specdraft.commands.options import AsJson, ConfigDir, Overrides, console, say, say_while_loading

if TYPE_CHECKING:
    from rich.table import Table

    from specdraft.study.alignment_fit import FittedAlignment


def fit_alignment(
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="a .safetensors file (default: beside the traces)", show_default=False)
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Fit the target's last state as an affine function of the draft model's.

    On the pair's prompts with the target's continuations, or on fit.text=FILE. Also fit.tokens, fit.window, fit.folds,
    fit.ridge, fit.rank, fit.refine=true, fit.steps. Use it with drafter=aligned drafter.path=FILE.
    """
    from specdraft.results.files import check_file_writable, check_folder_writable
    from specdraft.traces.store import default_folder

    folder = default_folder() / "fitted"
    if out:
        check_file_writable(out, "--out", (".safetensors",))
    else:
        check_folder_writable(folder)
    say_while_loading()
    from specdraft.study.alignment_fit import default_path
    from specdraft.study.alignment_fit import fit_alignment as fit

    fitted = fit(overrides or [], config_dir, say)
    path = out or default_path(fitted.pair, folder)
    fitted.write(path)
    if as_json:
        typer.echo(json.dumps(fitted.as_dict() | {"file": str(path)}))
    else:
        console().print(_table(fitted))
    say(f"{path}: written")


def _table(fitted: FittedAlignment) -> Table:
    from rich.table import Table

    quality, heads = fitted.quality, fitted.quality.heads
    spread = ", ".join(f"{name} {value:.2f}" for name, value in quality.r2_by_dimension.items())
    table = Table("", "", title=f"alignment of {fitted.pair.spec.name}, on {quality.positions} held-out tokens")
    rows = {
        "fitted to": f"{fitted.tokens} tokens of {fitted.source}",
        "ridge, condition number": f"{fitted.ridge:g}, {fitted.condition:.3g}",
        "rank": str(fitted.rank),
        "R2": f"{quality.r2:.3f} (by dimension: {spread})",
        "cosine": f"{quality.cosine:.3f}",
    }
    for name, head in heads.items():
        rows[f"top-1 agreement with the target, {name} head"] = f"{head.agreement:.3f} (KL {head.kl:.3f})"
    if (refined := fitted.refined) is not None:
        end = "converged" if refined.converged else "not converged: more fit.steps would help"
        rows["refined"] = (
            f"{refined.steps} steps, KL {refined.kl_before:.3f} -> {refined.kl_after:.3f}, gradient at "
            f"{refined.gradient:.2g} of its first length; {end}"
        )
    rows["memory"] = str(fitted.overhead)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
