"""A journal that something else wrote into: its lines are passed over, and their rows are made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specdraft.errors import ResultsError
from specdraft.results.journal import Journal, Row, read_rows
from specdraft.results.metrics import Tally
from specdraft.study.manifest import Facts

NUMBERS = {"budget": 2, "nodes": 2, "depth": 2, "max_new_tokens": 6, "seed": 0}
KEYS = {"combination": "c", "pair": "p", "tree": "chain"} | NUMBERS


@pytest.fixture
def lines(tmp_path: Path) -> list[Any]:
    """Key columns and one row, as a journal has them."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add_combinations([(dict(KEYS), ("t", "d"))])
    journal.add_row(Row("c", ("t", "d"), "1", "story", 0, Tally(steps=2, nodes={(0,): [2, 1]}, positions={1: [2, 1]})))
    journal.close()
    return [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]


def read(tmp_path: Path, lines: list[Any]) -> tuple[int, int]:
    """How many combinations and rows there are."""
    path = tmp_path / "again.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    journal = Journal(path)
    journal.close()
    assert len(list(read_rows(path))) >= len(journal)
    return len(journal.combinations), len(journal)


def test_what_was_written_is_read(tmp_path: Path, lines: list[Any]) -> None:
    assert read(tmp_path, lines) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda keys, row: row.update(prompt_id=[1]),
        lambda keys, row: row.update(category=None),
        lambda keys, row: row.update(repeat="0"),
        lambda keys, row: row.update(weights=[1, 2]),
        lambda keys, row: row["tally"].update(steps="2"),
        lambda keys, row: row["tally"].update(nodes=[[["a"], [2, 1]]]),
        lambda keys, row: row["tally"].update(nodes=[[[0], ["2", 1]]]),
        lambda keys, row: row["tally"].update(lengths=[[0, "2"]]),
        lambda keys, row: keys["keys"].update(budget="2"),
        lambda keys, row: keys["keys"].update(tree=["chain"]),
        lambda keys, row: keys.update(keys={"combination": "c"}),
        lambda keys, row: keys.update(weights=[["t"], "d"]),
    ],
)
def test_lines_of_wrong_types_are_passed_over(
    tmp_path: Path, lines: list[Any], change: Callable[[Any, Any], None]
) -> None:
    change(*lines)
    assert read(tmp_path, lines)[1] == 0


@pytest.mark.parametrize(
    "manifest",
    [
        {"models": 3},
        {"models": {"zoo": 3}},
        {"costs": [1]},
        {"certificate": [3]},
        {"certificate": {"live": 3}},
        {"certificate": {"live": [{}]}},
        {"certificate": {"rules": {"greedy": 3}}},
        {"certificate": {"recorded": 3}},
        {"wall_s": "x"},
    ],
)
def test_a_manifest_of_wrong_types_is_refused(manifest: dict[str, Any]) -> None:
    with pytest.raises(ResultsError, match=r"manifest\.json holds what no sweep writes .* --fresh"):
        Facts.of(manifest)
