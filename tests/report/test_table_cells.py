"""Cells of tables: short to look at, whole to copy; equal trees in one row; certificates in sentences."""

from __future__ import annotations

import re
from math import nan
from pathlib import Path

import pandas as pd
import pytest
from support.made_studies import write_study

from specdraft.report import page
from specdraft.report.certificate import certificate_text
from specdraft.report.document import compose
from specdraft.report.page import html_page
from specdraft.report.study_files import read_study
from specdraft.report.summary_table import summary_table
from specdraft.report.table import Table, full, interval_cell, three_digits, value_cell
from specdraft.report.words import plain
from specdraft.results.intervals import Interval


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1.58412", "1.58"),
        ("93.1056", "93.1"),
        ("1162.5312", "1163"),
        ("0.536585", "0.537"),
        ("0.01234", "0.0123"),
        ("-2.5e-05", "-2.5e-05"),
        ("0.0", "0"),
        ("64", "64"),
        ("kary-k2.5", "kary-k2.5"),
        ("", ""),
        ("nan", "nan"),
    ],
)
def test_three_digits(text: str, shown: str) -> None:
    cell = three_digits(text)
    assert (cell, full(cell)) == (shown, text)


def test_values_and_intervals_keep_their_digits() -> None:
    assert (value_cell(240.04), full(value_cell(240.04))) == ("240", "240.04")
    assert value_cell(nan) == full(value_cell(nan)) == "–"
    cell = interval_cell(Interval(12.3456, 11.5, 13.25))
    assert (cell, full(cell)) == ("12.3 [11.5, 13.2]", "12.3456 [11.5, 13.25]")
    signed = interval_cell(Interval(0.1234567, -0.1, 0.3), "+.3f")
    assert (signed, full(signed)) == ("+0.123 [-0.100, +0.300]", "+0.123457 [-0.1, +0.3]")


def test_columns_of_numbers() -> None:
    rows = [("a", "1.58 [1.50, 1.61]", "–", "4", "2 with 3"), ("2", "–", "", "1,024", "9")]
    assert Table("t", "t", ("name", "value", "nothing", "count", "words"), rows).numeric == {"value", "count"}


def test_rows_of_one_tree_are_one(tmp_path: Path) -> None:
    """Same counts and same nodes: one row; same counts of other nodes, or nodes that nobody kept: two."""
    folder = write_study(tmp_path / "s", trees=("chain", "kary", "wide"), budgets=(2,))
    summary = pd.read_csv(folder / "summary.csv", dtype=str, keep_default_na=False)
    for name in set(summary) - {"combination", "tree"}:
        summary[name] = summary[name].iloc[0]
    summary.to_csv(folder / "summary.csv", index=False)
    nodes = pd.read_csv(folder / "nodes.csv", dtype=str, keep_default_na=False)
    wide = nodes["combination"] == summary["combination"].iloc[2]
    nodes.loc[wide, "rank_path"] = nodes.loc[wide, "rank_path"].replace("0/0", "2")
    nodes.to_csv(folder / "nodes.csv", index=False)
    table = summary_table(read_study(folder))
    assert [row[table.columns.index("tree")] for row in table.rows] == ["chain = kary", "wide"]
    assert table.rows[0][-1] == ", ".join(summary["combination"][:2]) and "share a row" in plain(table.note)
    (folder / "nodes.csv").unlink()
    apart = summary_table(read_study(folder))
    assert len(apart.rows) == 3 and "share a row" not in plain(apart.note)


def test_a_certificate_without_live_texts_says_so() -> None:
    rows = pd.DataFrame({"engine": ["replay"], "temperature": ["0"]})
    said = plain(certificate_text({"compared": 0, "replayed": 15, "ties": [], "bugs": []}, rows))
    assert said == (
        "No greedy text of this study was decoded live, so none was compared with plain decoding. 15 rows are replayed "
        "along the target's own recorded texts, which no tree changes."
    )
    assert certificate_text(None, rows) == certificate_text({}, rows) == ()


def test_sampled_live_rows_are_not_called_replayed() -> None:
    rows = pd.DataFrame({"engine": ["live", "live"], "temperature": ["0.7", "0.0"]})
    live = [{"passed": True}, {"passed": False}]
    said = plain(certificate_text({"compared": 3, "identical": 3, "sampled": 9, "replayed": 0, "live": live}, rows))
    assert "1 sampled combination was decoded live" in said and "replayed" not in said
    assert said.endswith("1 of 2 checks of live texts passed.")


def test_no_marks_of_markup_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "vega_bundle", lambda: "")
    text = html_page(compose(read_study(write_study(tmp_path / "s"))))
    shown = re.sub(r"<[^>]*>", "", re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL))
    assert "`" not in shown and "**" not in shown and "<code><bdi>typical</bdi></code>" in text


def test_the_engine_says_what_was_replayed(tmp_path: Path) -> None:
    """Also of live rows without times, as of sampled ones that were not timed."""
    folder = write_study(tmp_path / "s", settings=(("rejection", 0.7),))
    for live, words in ((0, "replayed"), (1, "replayed and live"), (9, "decoded live")):
        summary = pd.read_csv(folder / "summary.csv")
        summary["engine"] = ["live"] * min(live, len(summary)) + ["replay"] * max(0, len(summary) - live)
        summary.to_csv(folder / "summary.csv", index=False)
        document = compose(read_study(folder))
        assert any(label.endswith(f", {words}") for _, label in document.tiles)
        said = " ".join(map(plain, document.confidence.reasons))
        assert ("are replayed from recorded texts" in said) == (live < 9)
        assert ("Token counts of replayed rows" in said) == (live == 1)
