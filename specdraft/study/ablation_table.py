"""What each group of features adds to a predictor, in the folder of the study whose texts it was worked out on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from specdraft.errors import ConfigError
from specdraft.prediction.ablation import Step
from specdraft.prompts import Prompt, digest_of_each
from specdraft.results.kept_tables import ABLATION, TEXTS, KeptTable
from specdraft.results.locks import locked
from specdraft.results.study_tables import load_study
from specdraft.study.combination import Combination


def ablation_table(steps: Sequence[Step], combination: Combination, prompts: int) -> pd.DataFrame:
    """A row for each group that was added, with the columns of `ABLATION`."""
    texts = {name: combination.keys[name] for name in TEXTS} | {"prompts": prompts}
    return pd.DataFrame([texts | step.as_row() for step in steps], columns=ABLATION.columns)


def check_same_texts(folder: Path, combination: Combination, prompts: Sequence[Prompt]) -> None:
    """Raise `ConfigError` unless a study is of these texts, `ResultsError` where the folder holds none."""
    study, keys = load_study(folder), combination.keys
    wanted = {name: keys[name] for name in (*TEXTS, "target", "draft")}
    if not (study.summary[list(wanted)] == pd.Series(wanted)).all(axis=1).any():
        said = " ".join(f"{name}={value}" for name, value in wanted.items())
        raise ConfigError(f"--study {folder}: expected a study that has rows of {said}")
    if study.manifest.get("prompt_digests") != digest_of_each(prompts):
        raise ConfigError(f"--study {folder}: it has other prompts than these {len(prompts)}; expected the same ones")


def write_ablation(folder: Path, table: pd.DataFrame) -> None:
    """Put an ablation in the place of what a study's folder knew of the same texts. Raises `ResultsError`."""
    with locked(folder):
        kept = KeptTable(ABLATION, folder)
        kept.add(table)
        kept.write()
