"""`specdraft fit predictor`: which draft nodes will be accepted?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from specdraft.commands.options import AsJson, ConfigDir, Overrides, console, say, say_while_loading


def fit_predictor(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="the predictor's file (default: beside the traces)")] = None,
    model: Annotated[str, typer.Option("--model", help="raw, temperature, logistic, isotonic or mlp")] = "mlp",
    calibration: Annotated[
        str, typer.Option("--calibration", help="calibration on top: none, temperature, platt, isotonic or sequential")
    ] = "none",
    features: Annotated[
        str | None,
        typer.Option("--features", help="groups of features that it reads: raw,temperature,place,spread,parent,loop"),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option("--rows", help="also write every node's prediction and outcome as CSV")
    ] = None,
    ablation: Annotated[bool, typer.Option("--ablation", help="also say what each group of features adds")] = False,
    alignment: Annotated[
        Path | None, typer.Option("--alignment", help="with --ablation: also what this alignment's features add")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option("--study", help="with --ablation: the study of these texts, whose report then shows it"),
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """Fit a predictor of acceptance to a pair's traces.

    Scores are of prompts that were not fitted on; the file is fitted on all.
    """
    from specdraft.errors import ConfigError
    from specdraft.results.files import check_file_writable, csv_pieces, write_atomically

    for option, path, endings in (("--out", out, (".safetensors",)), ("--rows", rows, (".csv",))):
        if path:
            check_file_writable(path, option, endings)
    if alignment and not ablation:
        raise ConfigError(
            "--alignment FILE belongs to --ablation: where trees are grown and pruned the draft model's states are not "
            "at hand, so a predictor that is kept reads none; drafter=aligned drafter.path=FILE drafts through it"
        )
    if study and not ablation:
        raise ConfigError("--study DIR belongs to --ablation: that is what is written there")
    say_while_loading()
    from specdraft.prediction.predictor import save_predictor
    from specdraft.study import fit_predictor as fitting
    from specdraft.study.ablation_table import write_ablation
    from specdraft.viewer.prediction_tables import predictor_tables

    groups = features.split(",") if features else None
    fitting.check_choice(model, calibration, groups or ())
    learnt = fitting.learn(overrides or [], config_dir, say, alignment, study)
    fitted = fitting.fit_predictor(learnt, model, calibration, ablation, groups)
    if as_json:
        typer.echo(json.dumps(fitted.as_dict()))
    else:
        for part in predictor_tables(fitted):
            console().print(part)
    out = out or fitting.default_file(learnt.combination)
    save_predictor(fitted.predictor, out)
    say(f"{out}: written")
    if rows:
        write_atomically(rows, csv_pieces(fitted.table()))
        say(f"{rows}: written")
    if study:
        write_ablation(study, fitted.ablation_table())
        say(f"{study / 'ablation.csv'}: written; specdraft report {study} shows it")
