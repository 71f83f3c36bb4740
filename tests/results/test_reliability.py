from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from specdraft.errors import ResultsError
from specdraft.results.reliability import ALL, Reliability, read_reliability


def measured(pair: str, scores: str, nodes: int) -> pd.DataFrame:
    values = [pair, "model", 0.0, 0, 1.0, 64, 0, scores, "survival", "score", -1, -1, 3, nodes, 0.17, 1]
    return pd.DataFrame([values], columns=ALL)


def test_what_is_measured_again_takes_the_place_of_what_was_known(tmp_path: Path) -> None:
    first = Reliability(tmp_path)
    first.add(measured("zoo", "raw", 10))
    first.add(measured("zoo", "calibrated", 11))
    first.write()
    second = Reliability(tmp_path)
    second.add(measured("zoo", "raw", 20))
    second.add(measured("tiny", "raw", 30))
    second.write()
    table = read_reliability(tmp_path / "reliability.csv")
    assert table[["pair", "scores", "nodes"]].values.tolist() == [
        ["zoo", "calibrated", 11],
        ["zoo", "raw", 20],
        ["tiny", "raw", 30],
    ]


def test_without_anything_to_say_there_is_no_file(tmp_path: Path) -> None:
    Reliability(tmp_path).write()
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_made_again_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "reliability.csv").write_text("pair,nonsense\n1,2\n")
    with pytest.raises(ResultsError, match="expected the columns pair, drafter"):
        read_reliability(tmp_path / "reliability.csv")
    again = Reliability(tmp_path)
    again.add(measured("zoo", "raw", 5))
    again.write()
    assert read_reliability(tmp_path / "reliability.csv")["nodes"].tolist() == [5]
