"""Length policies in the report: what is said of them follows from their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.made_studies import write_study

from specdraft.report.figures.canvas import canvas_of
from specdraft.report.figures.policies import policies
from specdraft.report.findings import Findings, fair, findings_of
from specdraft.report.lengths_table import lengths_table
from specdraft.report.study_files import read_study
from specdraft.report.words import plain

ROWS = [  # length, nodes, drafted and accepted tokens of 100 steps, tokens per second
    ("constant-k1", 1, 100, 60, 200.0),
    ("constant-k3", 3, 300, 100, 220.0),
    ("constant", 8, 800, 120, 150.0),
    ("hf_heuristic", 8, 200, 100, 240.0),
    ("svip-t0.2", 8, 600, 110, 180.0),
    ("oracle", 8, 120, 120, 300.0),
]


def made(folder: Path, rows: list[tuple[Any, ...]], timed: bool = True) -> Findings:
    write_study(folder, trees=("chain",), budgets=(8,))
    (row,) = pd.read_csv(folder / "summary.csv", dtype=str, keep_default_na=False).to_dict("records")
    listed = [
        row
        | {"combination": f"{place:012x}", "length": length, "nodes": nodes, "steps": 100, "drafted_tokens": drafted}
        | {"accepted_tokens": accepted, "block_efficiency": 1 + accepted / 100}
        | {"est_tokens_per_s": speed if timed else ""}
        for place, (length, nodes, drafted, accepted, speed) in enumerate(rows)
    ]
    pd.DataFrame(listed).to_csv(folder / "summary.csv", index=False)
    return findings_of(read_study(folder))


def test_policies_stand_beside_constants_at_equal_cost(tmp_path: Path) -> None:
    table = lengths_table(made(tmp_path / "s", ROWS))
    assert table is not None
    heuristic, svip, oracle = table.rows
    # 2 drafted tokens a step: half the way from 1 to 3, so 1.8; 2.0 tokens per step take a constant 3, of which 2 fail
    assert heuristic[:4] == ("zoo", "hf_heuristic", "8", "2.00") and heuristic[4].startswith("2.00")
    assert heuristic[5:7] == ("1.80", "+50%")
    assert heuristic[7:] == ("240", "220", "300", "+25%")
    # 6 drafted: 2 + 0.2 * 3 / 5; 2.1 tokens per step take 5.5 drafted, of which 4.4 fail
    assert svip[5:7] == ("2.12", f"{(5.5 - 6) / 4.4:+.0%}") and svip[10] == "-50%"
    assert oracle[6] == "+100%" and oracle[10] == "+100%"


def test_the_oracle_does_not_compete(tmp_path: Path) -> None:
    findings = made(tmp_path / "s", ROWS)
    assert set(findings.rows["length"]) - set(fair(findings.rows)["length"]) == {"oracle"}


def test_without_times_or_an_oracle_no_gap_is_closed(tmp_path: Path) -> None:
    for name, rows, timed in (("untimed", ROWS, False), ("alone", ROWS[:-1], True)):
        table = lengths_table(made(tmp_path / name, rows, timed))
        assert table is not None and {row[10] for row in table.rows} == {"–"}
    assert lengths_table(made(tmp_path / "constants", ROWS[:3])) is None


def test_the_figure_draws_constants_and_policies(tmp_path: Path) -> None:
    figure = policies(canvas_of(made(tmp_path / "s", ROWS)))
    assert figure is not None and figure.spec is not None
    drawn = figure.tables["policies"].set_index("policy")
    assert drawn.loc["svip-t0.2", "curve"] == "svip"
    assert drawn.loc["hf_heuristic", ["drafted", "tokens", "constant"]].tolist() == pytest.approx([2.0, 2.0, 1.8])
    said = plain(figure.caption)
    assert (
        "zoo: the most over a constant length that drafts as much has hf_heuristic: 2.00 tokens per step, 0.20" in said
    )
    assert policies(canvas_of(made(tmp_path / "constants", ROWS[:3]))) is None


def test_a_study_before_there_were_lengths_has_none(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    for file in folder.glob("*.csv"):
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        table.drop(columns="length", errors="ignore").to_csv(file, index=False)
    study = read_study(folder)
    assert set(study.summary["length"]) == {"constant"} and "length" not in study.varying
    assert lengths_table(findings_of(study)) is None
