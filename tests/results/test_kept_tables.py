from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from specdraft.errors import ResultsError
from specdraft.results.kept_tables import ABLATION, RELIABILITY, KeptTable


def measured(pair: str, scores: str, nodes: int) -> pd.DataFrame:
    values = [pair, "model", 0.0, 0, 1.0, 64, 0, scores, "survival", "score", -1, -1, 3, nodes, 0.17, 1]
    return pd.DataFrame([values], columns=RELIABILITY.columns)


def test_what_is_measured_again_takes_the_place_of_what_was_known(tmp_path: Path) -> None:
    first = KeptTable(RELIABILITY, tmp_path)
    first.add(measured("zoo", "raw", 10))
    first.add(measured("zoo", "calibrated", 11))
    first.write()
    second = KeptTable(RELIABILITY, tmp_path)
    second.add(measured("zoo", "raw", 20))
    second.add(measured("tiny", "raw", 30))
    second.write()
    table = RELIABILITY.read(tmp_path)
    assert table[["pair", "scores", "nodes"]].values.tolist() == [
        ["zoo", "calibrated", 11],
        ["zoo", "raw", 20],
        ["tiny", "raw", 30],
    ]


def test_without_anything_to_say_there_is_no_file(tmp_path: Path) -> None:
    KeptTable(RELIABILITY, tmp_path).write()
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_made_again_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "reliability.csv").write_text("pair,nonsense\n1,2\n")
    with pytest.raises(ResultsError, match="expected the columns pair, drafter"):
        RELIABILITY.read(tmp_path)
    again = KeptTable(RELIABILITY, tmp_path)
    again.add(measured("zoo", "raw", 5))
    again.write()
    assert RELIABILITY.read(tmp_path)["nodes"].tolist() == [5]


def test_an_ablation_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Empty cells are no numbers, and words that a reader could take for none stay words."""
    scores = dict.fromkeys([name for name in ABLATION.columns if name.startswith(("log_", "auroc", "ece_"))], 0.25)
    row = {"pair": "NA", "drafter": "=x", "temperature": 0.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 64}
    table = pd.DataFrame([row | {"prompts": 8, "added": "raw", "says": ""} | scores], columns=ABLATION.columns)
    kept = KeptTable(ABLATION, tmp_path)
    kept.add(table)
    kept.write()
    (read,) = ABLATION.read(tmp_path).to_dict("records")
    assert (read["pair"], read["drafter"], read["says"], read["log_loss_hi"]) == ("NA", "=x", "", 0.25)
    assert np.isnan(read["gained_log_loss"]) and len(read) == 27
    text = (tmp_path / "ablation.csv").read_text()
    (tmp_path / "ablation.csv").write_text(text.replace(",64,8,", ",64,eight,"))
    with pytest.raises(ResultsError, match=r"ablation\.csv: prompts holds text where numbers are expected"):
        ABLATION.read(tmp_path)
