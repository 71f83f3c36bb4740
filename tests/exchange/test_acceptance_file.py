"""Acceptance by rank from files: every form, and the published counts of Sequoia's demo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import engine_files as files

from specdraft.errors import ConfigError
from specdraft.exchange.acceptance_file import read_acceptance_file
from specdraft.results.study_tables import load_study
from specdraft.trees.optimal import best_tree

SEQUOIA = [423, 72, 38, 15, 13, 10, 3, 2, 8, 3, 5, 3, 4, 2, 1, 2, 1, 2, 0, 2, 2, 2, 0, 1, 0, 1, 0, 0, 0, 1, 1, 1]


def of(tmp_path: Path, text: str) -> np.ndarray:
    (tmp_path / "acceptance").write_text(text)
    return read_acceptance_file(tmp_path / "acceptance")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0.6, 0.2]", [0.6, 0.2]),
        ('{"acceptance": [0.6, 0.2]}', [0.6, 0.2]),
        ("[[0.6, 0.2], [0.5, 0.1]]", [[0.6, 0.2], [0.5, 0.1]]),
        ('{"counts": [6, 2], "none": 2}', [0.6, 0.2]),
        ('{"counts": [6, 2], "total": 20}', [0.3, 0.1]),
        ('{"counts": [[6, 2], [1, 0]], "none": [2, 3]}', [[0.6, 0.2], [0.25, 0.0]]),
        ('{"counts": [[6, 2], [0, 0]], "none": [2, 0]}', [[0.6, 0.2], [0.0, 0.0]]),
        ("rank,count\n0,6\n1,2\nnone,2\n", [0.6, 0.2]),
        ("rank, acceptance\n1, 0.2\n0, 0.6\n", [0.6, 0.2]),
        ("depth,rank,acceptance\n1,0,0.6\n1,1,0.2\n2,0,0.5\n", [[0.6, 0.2], [0.5, 0.0]]),
        ("depth,rank,reached,accepted\n1,0,10,6\n1,1,10,2\n2,0,4,1\n", [[0.6, 0.2], [0.25, 0.0]]),
        (files.LLAMA_LOG, [[0.805], [0.632 / 0.805], [0.483 / 0.632]]),
        ("[39, 1, 0, 3]", [[4 / 43], [3 / 4], [1.0]]),
    ],
)
def test_every_form(tmp_path: Path, text: str, expected: list[float]) -> None:
    assert np.allclose(of(tmp_path, text), expected)


def test_published_counts(tmp_path: Path) -> None:
    acceptance = of(tmp_path, json.dumps({"counts": SEQUOIA, "none": 49}))
    for size, expected in ((2, 1.6342), (4, 2.2914), (8, 2.7322), (16, 3.1303)):
        assert round(1 + best_tree(acceptance, size - 1, max_depth=9).expected_accepted, 4) == expected


def test_siblings_of_a_study(tmp_path: Path, small_study: Path) -> None:
    study = load_study(small_study)
    one = study.summary.query("tree == 'kary' and budget == 4")["combination"].item()
    siblings = pd.read_csv(small_study / "siblings.csv", dtype={"combination": str})
    own = siblings[siblings["combination"] == one]
    matrix = of(tmp_path, own.to_csv(index=False))
    assert matrix.shape == (2, 2)
    row = study.summary.set_index("combination").loc[one]
    tree = best_tree(matrix, 4)
    assert tree.expected_accepted >= row["acceptance_length"] * 0.9
    with pytest.raises(ConfigError, match="holds several combinations"):
        read_acceptance_file(small_study / "siblings.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"counts": [6, 2]}', "counts without none or total"),
        ('{"counts": [6, "x"], "none": 2}', "are no list of numbers"),
        ('{"counts": [[6, 2], [1]], "none": [2, 1]}', "are no list of numbers"),
        ('{"counts": [[6, 2], [1, 0]], "none": 2}', "none has the shape ()"),
        ('{"counts": [6, 2], "total": 5}', "rank 0 has 1.2"),
        ("rank,count\n", "has no lines"),
        ("rank,count\n0,six\n", "line 2: count='six' is no number"),
        ("rank,count\n0,6\n99999999,2\n", "a depth or a rank out of range"),
        ("depth,rank,acceptance\n0,0,0.5\n", "a depth or a rank out of range"),
        ("[0.9, 0.2]", "the probabilities sum to 1.1"),
        (files.LLAMA_OLD, "has no acceptance by position"),
        ("hello", "holds no figures of speculative decoding"),
    ],
)
def test_what_is_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        of(tmp_path, text)
    assert message in str(error.value) and "\n" not in str(error.value)
