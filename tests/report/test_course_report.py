"""The course report has the benchmark of tree attention where there is one beside the study."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from support.made_studies import write_study

from specdraft.bench.attention import Row
from specdraft.report.attention import FACTS, TABLE
from specdraft.report.figures.base import Drawn

SCRIPT = Path(__file__).parents[2] / "scripts" / "course_report.py"
ROWS = [
    Row(name, "zoo", 1, 2048, 8, "wide", 8, "float32", "cpu", median_s, 0.1, 5, 1e-6, 2.0, 0.2, 0.5)
    for name, median_s in (("sequential", 8.0), ("dense", 2.0))
]


def script() -> Any:
    spec = spec_from_file_location("course_report", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its own figures are not drawn: that takes seconds."""
    monkeypatch.setattr("specdraft.report.document.draw", lambda findings: Drawn())
    return write_study(tmp_path / "course-report")


def test_tree_attention_is_in_the_report_with_figures_and_an_analysis(study: Path) -> None:
    script().main(study)
    assert "Tree attention" not in (study / "COURSE_REPORT.md").read_text()
    folder = study / "attention"
    folder.mkdir()
    pd.DataFrame(ROWS).to_csv(folder / TABLE, index=False)
    facts = {"where": "a CPU (x, 1 thread)", "dtype": "float32", "copy_gb_s": 8.0, "device": "cpu"}
    (folder / FACTS).write_text(json.dumps(facts))
    script().main(study)
    text = (study / "COURSE_REPORT.md").read_text()
    section = text[text.index("### Tree attention on a CPU (x, 1 thread), float32") : text.index("## 6. Limits")]
    assert "(<attention/figures/price-zoo.png>)" in section and "(<attention/figures/speedup-zoo.png>)" in section
    assert "The quickest of `dense` is 4.00 to 4.00 times as fast as `sequential` there" in section
    assert "| zoo | 1 | 2048 | 8 | wide | 8 | 4.00 |" in section
    assert "`attention/attention.csv`" in text[text.index("## 7.") :]


def test_a_folder_that_is_no_benchmark_is_one_line(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "attention").mkdir()
    with pytest.raises(typer.Exit) as stop:
        script().main(study)
    assert stop.value.exit_code == 2
    assert "attention: not a benchmark of tree attention" in capsys.readouterr().err
