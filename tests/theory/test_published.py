from __future__ import annotations

import itertools
import json

import pytest
from support.command_line import Run

from specdraft.theory.formulas import expected_tokens, speedup
from specdraft.theory.published import T5, Row


def test_the_formula_gives_nine_of_twelve_as_printed_and_all_unrounded() -> None:
    assert (len(T5), sum(row.given for row in T5), sum(row.given_unrounded for row in T5)) == (12, 9, 12)


@pytest.mark.parametrize("row", T5, ids=lambda row: f"{row.task}-{row.temperature}-{row.draft}")
def test_unrounded_means_some_alpha_and_cost_nearby(row: Row) -> None:
    nearby = [(step - 10) * 0.0005 for step in range(21)]
    found = [speedup(row.alpha + a, row.gamma, row.cost + c) for a, c in itertools.product(nearby, nearby)]
    assert any(abs(value - row.expected) <= 0.05 + 1e-9 for value in found) == row.given_unrounded


def test_the_command(run: Run) -> None:
    said = run("theory", "--table", "t5")
    assert said.code == 0
    assert "the formula gives 9 of 12 as printed, 12 within rounding" in said.out
    found = json.loads(run("theory", "--table", "t5", "--json").out)
    assert found["rows"][0]["tokens"] == pytest.approx(expected_tokens(0.75, 7))
    assert [row["measured"] for row in found["rows"]][:3] == [3.4, 2.8, 1.7]


def test_bad_input(run: Run) -> None:
    said = run("theory", "--table", "t6")
    assert (said.code, "--table t6: no such table; did you mean 't5'?" in said.err) == (2, True)
    for more in (["pair=zoo"], ["--alpha", "0.5"], ["--gamma", "3"]):
        said = run("theory", "--table", "t5", *more)
        assert (said.code, "--table shows what was published" in said.err) == (2, True)
