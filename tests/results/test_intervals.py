"""A value with its interval: how it is read, written and handed to programs."""

from __future__ import annotations

import json
from math import inf, nan

import pandas as pd
import pytest

from specdraft.results.intervals import Interval, number


def test_an_interval_is_read_from_a_summary_row() -> None:
    row = pd.Series({"alpha": 0.5, "alpha_lo": 0.4, "alpha_hi": 0.6})
    assert Interval.of(row, "alpha") == Interval.of(row.to_dict(), "alpha") == (0.5, 0.4, 0.6)


@pytest.mark.parametrize(
    ("interval", "text", "four_digits"),
    [
        (Interval(2.5, 2.0, 3.0), "2.50 [2.00, 3.00]", "2.5000 [2.0000, 3.0000]"),
        (Interval(0.0123, -0.05, 0.08), "0.012 [-0.050, 0.080]", "0.0123 [-0.0500, 0.0800]"),
        (Interval(2.5, nan, nan), "2.50", "2.5000"),
        (Interval(nan, nan, nan), "–", "nan"),
    ],
)
def test_an_interval_is_written_with_its_bounds_where_they_are_known(
    interval: Interval, text: str, four_digits: str
) -> None:
    assert (str(interval), f"{interval}", f"{interval:.4f}") == (text, text, four_digits)


def test_programs_get_none_for_a_bound_that_is_not_known() -> None:
    assert Interval(2.5, 2.0, 3.0).as_dict() == {"value": 2.5, "lo": 2.0, "hi": 3.0}
    assert json.loads(json.dumps(Interval(2.5, nan, nan).as_dict(), allow_nan=False)) == {
        "value": 2.5,
        "lo": None,
        "hi": None,
    }


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.00"), (0.0, "0.00"), (0.0999, "0.100"), (0.001234, "0.0012"), (-0.002, "-0.002")]
)
def test_a_number_has_more_digits_where_two_would_say_nothing(value: float, text: str) -> None:
    assert number(value) == text and number(nan) == "–" and number(inf) == "inf"
