"""What predicting acceptance is worth on the bundled pairs: the tables in `results/prediction/`.

    python scripts/bench_prediction.py --out results/prediction [--alignments DIR]

Texts and trees that are not recorded yet are recorded ($SPECDRAFT_TRACES). Every score is of prompts that were not
fitted on, with its 95 % interval over prompts. `DIR/PAIR.safetensors` are alignments (`specdraft fit alignment`, on
other text than the prompts'): what their features add joins the ablation as `extra`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer

from specdraft.prediction.cross_fitting import fit
from specdraft.prediction.predictors import models
from specdraft.results.files import to_csv, write_atomically
from specdraft.results.intervals import columns
from specdraft.results.kept_tables import ABLATION, KeptTable
from specdraft.study.fit_predictor import FittedPredictor, Learnt, fit_predictor, learn

PAIRS = "zoo,zoo-distilled,zoo-tiny"
SETTINGS = {"greedy": "sampling=greedy", "sampled at temperature 1": "sampling=sample"}
Rows = list[dict[str, Any]]


def scores(fitted: FittedPredictor) -> Rows:
    """A row for each model, calibration, and kind of prediction; `change_` is against the drafter's own probability."""
    return [
        {"what": one.what, "model": one.model, "calibration": one.calibration}
        | columns(one.scores)
        | columns({name: one.against_raw[name] for name in ("ece", "ece_debiased", "log_loss", "auroc")}, "change_")
        for one in fitted.scored
    ]


def places(fitted: FittedPredictor) -> Rows:
    """Survival by depth and child rank (empty: all)."""
    return [
        {
            "model": fitted.held_out.model,
            "depth": place.depth if place.depth >= 0 else "",
            "rank": place.rank if place.rank >= 0 else "",
        }
        | {"rows": place.rows, "predicted": place.predicted, "happened": place.happened}
        | columns({name: place.scores[name] for name in ("ece_debiased", "brier", "auroc")})
        for place in fitted.places()
    ]


def reliability(fitted: FittedPredictor) -> Rows:
    """The bars of the reliability diagrams, before and after."""
    return [
        {"what": what, "of": name} | part._asdict()
        for name, of in (("raw", fitted.raw), (fitted.held_out.model, fitted.held_out))
        for what in ("conditional", "survival")
        for part in fitted.reliability(of, what)
    ]


TABLES: dict[str, Callable[[FittedPredictor], Rows]] = {
    "calibration.csv": scores,
    "places.csv": places,
    "reliability.csv": reliability,
}


def fitting_times(learnt: Learnt) -> dict[str, float]:
    """Kind of model -> processor seconds of one fit on all prompts, calibrations included."""
    taken = {}
    for kind in models():
        started = time.process_time()
        fit(kind, learnt.rows, np.arange(len(learnt.fold)))
        taken[kind] = round(time.process_time() - started, 2)
    return taken


def predictors(pairs: Iterable[str], out: Path, alignments: Path | None = None) -> None:
    """Every pair under both settings, into the tables of `TABLES`, `ablation.csv` and `predictors.json`."""
    tables: dict[str, Rows] = {name: [] for name in TABLES}
    ablation = KeptTable(ABLATION, out)
    facts: Rows = []
    for pair in pairs:
        for setting, override in SETTINGS.items():
            typer.echo(f"{pair}, {setting}", err=True)
            alignment = alignments / f"{pair}.safetensors" if alignments else None
            learnt = learn([f"pair={pair}", override], alignment=alignment)
            fitted = fit_predictor(learnt, ablation=True)
            for name, rows_of in TABLES.items():
                tables[name] += [{"pair": pair, "sampling": setting} | row for row in rows_of(fitted)]
            ablation.add(fitted.ablation_table())
            rows = learnt.rows
            counts = {"prompts": len(learnt.prompts), "nodes": len(rows.prompt), "reached": int(rows.reached.sum())}
            known = {"pair": pair, "sampling": setting, "scores_temperature": learnt.temperature}
            facts.append(known | counts | {"accepted": int(rows.accepted.sum()), "fit_cpu_s": fitting_times(learnt)})
    for name, listed in tables.items():
        write_atomically(out / name, to_csv(pd.DataFrame(listed)))
    ablation.write()
    where = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    write_atomically(out / "predictors.json", json.dumps(where | {"fits": facts}, indent=1) + "\n")


def main(
    pairs: Annotated[str, typer.Option(help="pair configs, with commas between")] = PAIRS,
    out: Annotated[Path, typer.Option(help="the folder of the tables")] = Path("results/prediction"),
    alignments: Annotated[Path | None, typer.Option(help="a folder of alignments, PAIR.safetensors each")] = None,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    predictors(pairs.split(","), out, alignments)


if __name__ == "__main__":
    typer.run(main)
