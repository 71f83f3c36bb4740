"""What a benchmark of tree attention shows in words, and what its figures are drawn from."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from specdraft.attention.contestants import registry
from specdraft.report.attention import CONTESTANTS, AttentionReport, speedup_table
from specdraft.report.attention_findings import with_ratios
from specdraft.report.theme import COLOURS, GREY
from specdraft.report.words import plain

FACTS = {"where": "a CPU (x, 1 thread)", "dtype": "float32", "copy_gb_s": 8.0, "device": "cpu"}


def row(contestant: str, median_s: float | None, shape: str = "wide", leaves: int = 8, **said: Any) -> dict[str, Any]:
    there = {"contestant": contestant, "geometry": "zoo", "batch": 1, "context": 2048, "nodes": 8, "shape": shape}
    there |= {"leaves": leaves, "dtype": "float32", "device": "cpu", "median_s": median_s, "spread": 0.1, "repeats": 5}
    return there | {"max_rel_err": 1e-6, "gb_s": 2.0, "copy_share": 0.25, "decode_s": 0.5, "note": None} | said


ROWS = [
    row("sequential", 8.0),
    row("dense", 2.0),
    row("merged", 4.0),
    row("sequential", 2.0, "chain", 1),
    row("dense", 1.0, "chain", 1),
    row("merged", 4.0, "chain", 1),
    row("flex", None, note="failed: no"),
]


def said(rows: list[dict[str, Any]], facts: dict[str, Any] = FACTS) -> list[str]:
    return list(map(plain, AttentionReport(pd.DataFrame(rows), facts).findings))


def test_ratios_are_within_a_cell() -> None:
    ratios = with_ratios(pd.DataFrame(ROWS))
    assert ratios["speedup"].tolist() == [1, 4, 2, 1, 2, 0.5]
    assert ratios["price"].tolist() == [16, 4, 8, 4, 2, 8]
    assert set(ratios["kv_bytes"]) == {2 * 5 * 32 * 4 * 2057} and set(ratios["rows"]) == {8}


def test_sentences() -> None:
    lines = said(ROWS)
    assert lines[0].startswith("2 cells on a CPU (x, 1 thread), float32: ")
    assert "The quartiles of half of the timings are up to 10% apart." in lines[0]
    assert "(the worst is 1e-06 off" in lines[0] and lines[0].endswith("A large copy moves 8.00 GB/s here.")
    assert lines[1] == "flex in 1 cell: failed: no."
    assert lines[2] == (
        "zoo, context 2,048: a tree of 8 nodes costs at least 2.00 times one query (dense, chain, batch 1), 0.25 of "
        "one query a node."
    )
    where = "(trees of 4 or more leaves at a context of 1,024 or more)"
    assert f"dense is quicker than sequential in 1 of 1 cells {where}: 4.00 to 4.00 times as fast." in lines
    assert f"merged is quicker than sequential in 1 of 1 cells {where}: 2.00 to 2.00 times as fast." in lines
    assert lines[5] == (
        "The quickest of dense and merged is 4.00 to 4.00 times as fast as sequential there; cells where it is slower: "
        "none."
    )
    assert any(line.startswith("sequential: trees of equal size") and "factor of 4.00" in line for line in lines)
    assert lines[-1] == "What share of a GPU's bandwidth triton reaches was not measured: no GPU here."


def test_a_tree_that_is_slower_than_its_paths_is_named() -> None:
    slower = [row("sequential", 2.0), row("dense", 4.0), row("merged", 2.5)]
    (line,) = [line for line in said(slower) if line.startswith("The quickest of")]
    assert line == (
        "The quickest of dense and merged is 0.80 to 0.80 times as fast as sequential there; cells where it is slower: "
        "zoo, wide, batch 1, context 2,048, 8 nodes."
    )
    short = [row("sequential", 2.0, context=512), row("dense", 4.0, context=512)]
    assert not [line for line in said(short) if "quick" in line]


def test_the_bandwidth_of_our_kernel_where_memory_binds_it() -> None:
    gpu: dict[str, Any] = {"device": "cuda", "dtype": "bfloat16", "geometry": "llama-3.1-8b", "batch": 8, "nodes": 16}
    rows = [row("triton", 1.0, context=8192, copy_share=share, **gpu) for share in (0.75, 0.9)]
    rows += [row("triton", 1.0, context=512, copy_share=0.1, **gpu)]  # in the cache
    rows += [row("triton", 1.0, context=8192, copy_share=0.1, **gpu | {"nodes": 64})]  # bound by arithmetic
    assert said(rows)[-1] == (
        "triton moves 75% to 90% of what a copy moves, where nodes x heads that share keys are at most 64 and keys and "
        "values 256 MB or more (2 cells)."
    )
    assert said(rows[2:])[-1].startswith("No cell of triton has 256 MB")


def test_what_there_was_no_time_for_is_said() -> None:
    assert said(ROWS, FACTS | {"cells_left_out": 3})[1] == "For 3 further cells there was no time (total_s)."


def test_nothing_timed_is_said() -> None:
    lines = said([row("flex", None, note="skipped: needs 9 GiB")])
    assert lines[1:] == ["flex in 1 cell: skipped: needs 9 GiB."]
    assert AttentionReport(pd.DataFrame([row("flex", None)]), FACTS).charts == {}


@pytest.mark.parametrize(("device", "names"), [("cpu", ["price-zoo", "speedup-zoo"]),
                                               ("cuda", ["price-zoo", "speedup-zoo", "bandwidth-zoo"])])  # fmt: skip
def test_figures(device: str, names: list[str]) -> None:
    charts = AttentionReport(pd.DataFrame([one | {"device": device} for one in ROWS]), FACTS).charts
    assert list(charts) == names
    price = charts["price-zoo"]
    assert price["title"] == "zoo: Tree attention on a CPU (x, 1 thread), float32"
    assert price["facet"]["column"]["field"] == "context" and price["facet"]["row"]["field"] == "batch"
    colour = price["spec"]["layer"][1]["encoding"]["color"]["scale"]
    assert colour == {"domain": ["sequential", "dense", "merged"], "range": [GREY, *COLOURS[1:3]]}
    (values,) = price["datasets"].values() if "datasets" in price else (price["data"]["values"],)
    assert [value["price"] for value in values] == [16, 4, 8, 4, 2, 8]


def test_the_table_has_a_row_for_each_tree() -> None:
    table = speedup_table(with_ratios(pd.DataFrame(ROWS)))
    assert table[2:] == [
        "| geometry | batch | context | nodes | shape | leaves | dense | merged |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| zoo | 1 | 2048 | 8 | wide | 8 | 4.00 | 2.00 |",
        "| zoo | 1 | 2048 | 8 | chain | 1 | 2.00 | 0.50 |",
        "",
    ]


def test_every_contestant_has_a_colour_and_an_order() -> None:
    assert {name for name in registry() if name != "decode"} == set(CONTESTANTS)
