"""The tables of what is predicted: what each feature adds, and what is promised beside what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from support.made_studies import write_study

from specdraft.report.findings import findings_of
from specdraft.report.run_facts import run_facts
from specdraft.report.study_files import read_study
from specdraft.report.table import Table
from specdraft.report.tables import tables
from specdraft.report.words import plain
from specdraft.results.files import to_csv
from specdraft.results.kept_tables import ABLATION

TEXTS = {
    "pair": "zoo",
    "drafter": "model",
    "temperature": 0,
    "top_k": 0,
    "top_p": 1,
    "max_new_tokens": 64,
    "prompts": 8,
}
STEPS = [  # added, says, log loss with its ends, what it gains
    ("raw", "", (0.4, 0.35, 0.45), (None, None, None)),
    ("temperature", "adds", (0.3, 0.25, 0.35), (-0.1, -0.12, -0.08)),
    ("place", "adds nothing", (0.301, 0.25, 0.35), (0.001, -0.02, 0.02)),
]
HELD = {"megabytes": 0.00064, "percent": 0.05}


def tables_of(folder: Path) -> dict[str, Table]:
    return {table.name: table for table in tables(findings_of(read_study(folder)))}


def with_ablation(folder: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for temperature in (0, 0.7):
        for added, says, loss, gained in STEPS:
            row = dict.fromkeys(ABLATION.columns, 0.9) | TEXTS | {"added": added, "says": says}
            for name, ends in (("log_loss", loss), ("gained_log_loss", gained)):
                row |= dict(zip((name, f"{name}_lo", f"{name}_hi"), ends, strict=True))
            rows.append(row | {"ece_debiased": 0.0123, "temperature": temperature})
    (folder / "ablation.csv").write_text(to_csv(pd.DataFrame(rows, columns=ABLATION.columns)))
    return folder


def test_what_each_feature_adds(tmp_path: Path) -> None:
    table, scores = tables_of(with_ablation(write_study(tmp_path / "s")))["ablation"], ("0.900", "0.0123")
    assert table.columns[:4] == ("texts", "prompts", "added", "log loss [95 %]")
    assert table.rows[:3] == [
        ("zoo", "8", "raw", "0.4000 [0.3500, 0.4500]", "–", *scores, "–"),
        ("zoo", "8", "temperature", "0.3000 [0.2500, 0.3500]", "-0.1000 [-0.1200, -0.0800]", *scores, "adds"),
        ("zoo", "8", "place", "0.3010 [0.2500, 0.3500]", "+0.0010 [-0.0200, +0.0200]", *scores, "adds nothing"),
    ]
    assert [row[0] for row in table.rows[3:]] == ["zoo · T=0.7"] * 3


def test_a_study_without_one_has_no_such_table_and_a_damaged_one_is_said_to_be(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    assert not {"ablation", "promises"} & tables_of(folder).keys()
    (folder / "ablation.csv").write_text("pair\nzoo\n")
    study = read_study(folder)
    assert any(note.startswith("ablation.csv: expected the columns pair, drafter") for note in study.notes)
    assert "ablation" not in tables_of(folder)


def test_what_is_promised_beside_what_was_measured(tmp_path: Path) -> None:
    """Of the trees that use it, the one that is fastest, with the shares of all its budgets; and the memory."""
    folder = write_study(tmp_path / "s", trees=("chain", "best_first", "best_first-calibrated"), budgets=(4, 16))
    summary = pd.read_csv(folder / "summary.csv", dtype=str, keep_default_na=False)
    mine = summary["tree"].eq("best_first-calibrated")
    summary.loc[mine & summary["budget"].eq("4"), ["est_speedup", "est_speedup_lo", "est_speedup_hi"]] = (
        "1.6",
        "1.5",
        "1.7",
    )
    summary.loc[mine, "acceptance_rate"] = ["0.32", "0.14"]
    summary.loc[mine, ["block_efficiency", "block_efficiency_lo", "block_efficiency_hi"]] = "2.5", "2.4", "2.6"
    summary.loc[mine & summary["budget"].eq("16"), "block_efficiency"] = "2.55"
    summary.loc[~mine, "est_speedup"] = "1.9"  # faster, but promised by nobody
    summary.to_csv(folder / "summary.csv", index=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["models"] = {
        "zoo": {"draft": {"path": "d", "alignment": {"file": "z.safetensors", "memory": json.dumps(HELD)}}}
    }
    manifest["predictors"] = {"zoo": {"p.safetensors": {"memory": HELD}, "damaged": {"memory": 3}, "other": None}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    table = tables_of(folder)["promises"]
    held = "0.05 % of both models (0.00064 MB)"
    faster = "1.60 [1.50, 1.70] (estimated) with 4 nodes; 2.55 [2.40, 2.60] tokens per step with 16 nodes"
    assert list(table.rows) == [
        ("2 to 3 times faster", "zoo", faster, "best_first-calibrated"),
        ("40 to 60 % of drafted tokens accepted", "zoo", "32% of 4 nodes, 14% of 16 nodes", "best_first-calibrated"),
        ("alignment and predictor for 10 % more memory", "zoo", held, "alignment z.safetensors"),
        ("alignment and predictor for 10 % more memory", "zoo", held, "predictor p.safetensors"),
    ]
    facts = {fact.label: plain(fact.text) for fact in run_facts(read_study(folder))}
    assert facts["zoo, predictor p.safetensors"] == facts["zoo, alignment z.safetensors"] == held
