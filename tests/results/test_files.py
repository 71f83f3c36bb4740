from __future__ import annotations

from io import StringIO
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdraft.results.files import absolute_paths, from_csv, to_csv, without_folders

FORMULAS = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-2", "\t=3", "'=4", "''-5"]
HARMLESS = ["'quoted'", "a=b", "5", "0/1", "", " =x"]


@given(st.lists(st.text("=+-@\t'a1, \"\n", max_size=6), min_size=1))
def test_texts_are_no_formulas_in_a_spreadsheet_and_come_back_unchanged(texts: list[str]) -> None:
    table = pd.DataFrame({"name": [*texts, *FORMULAS, *HARMLESS], "value": -1.5})
    written = to_csv(table)
    read = pd.read_csv(StringIO(written, newline=""), dtype={"name": str}, keep_default_na=False)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in read["name"])
    pd.testing.assert_frame_equal(from_csv(read), table, check_dtype=False)
    assert read["name"].tolist()[-len(HARMLESS) :] == HARMLESS


def test_numbers_are_not_marked() -> None:
    assert to_csv(pd.DataFrame({"value": [-1.5, 2]})) == "value\n-1.5\n2\n"


@pytest.mark.parametrize(
    ("content", "shared"),
    [
        ("/home/me/models/big", "big"),
        ("/home/me/my models/big", "big"),
        ("pair.target.path=/home/me/big", "pair.target.path=big"),
        ("pair.target.path=[/home/me/a,/home/me/b]", "pair.target.path=[a,b]"),
        ("/home/me/a,/home/me/b", "a,b"),
        ("pair.draft.path='/mnt/two words/x'", "pair.draft.path='x'"),
        ("/mnt/two words/x: the weights cannot be loaded: /mnt/y/z (2)", "x: the weights cannot be loaded: z (2)"),
        ({"path": "/home/me/big/", "limit": 3, "none": None}, {"path": "big", "limit": 3, "none": None}),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("accepted / drafted, n/a, ~/models/x, ./x/y", "accepted / drafted, n/a, ~/models/x, ./x/y"),
        ("/", "/"),
    ],
)
def test_of_absolute_paths_the_last_part_is_kept(content: Any, shared: Any) -> None:
    assert without_folders(content, ["/mnt/two words/x"]) == shared


def test_absolute_paths_are_found_at_any_depth() -> None:
    assert list(absolute_paths({"a": ["/x/y", {"b": "/z"}], "c": 3, "d": "rel/ative", "e": "/"})) == ["/x/y", "/z"]
