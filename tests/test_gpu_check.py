"""`scripts/gpu_check.sh` as it runs where there is no GPU: everything, as small as can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pandas as pd
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
PARTS = ["attention", "llama-1b", "live-bfloat16", "certify-bfloat16", "live-float32", "default", "attention-more"]


def test_steps_of_a_small_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_from_file_location("bench_step", SCRIPTS / "bench_step.py")
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "ROUNDS", 2)
    script.main(tmp_path / "step.json", small=True)
    rows = json.loads((tmp_path / "step.json").read_text())["rows"]
    assert [row["step"] for row in rows] == ["plain", "chain 8", "chain 64", "kary 64", "wide 64", "medusa 63"]
    assert rows[0]["price"] == 1 and all(row["low_s"] <= row["median_s"] <= row["high_s"] for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    """Minutes, most of them of the sweeps."""
    path = os.pathsep.join(filter(None, [str(SCRIPTS.parent), os.environ.get("PYTHONPATH")]))
    said = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    said |= {"PYTHONPATH": path, "PYTHON": sys.executable}
    subprocess.run(["bash", SCRIPTS / "gpu_check.sh", tmp_path, "--dry"], check=True, env=said, timeout=1500)
    summary = (tmp_path / "summary.md").read_text()
    rows = [line.split(" | ") for line in summary.splitlines() if line.startswith("| ") and line.endswith(" s |")]
    assert [(row[0].removeprefix("| "), row[1]) for row in rows] == [(name, "0") for name in PARTS], summary
    files = {path.name for path in tmp_path.iterdir()}
    assert len(files) <= 8 and {"attention.csv", "attention-more.csv", "llama-1b.json"} <= files
    assert len(pd.read_csv(tmp_path / "attention.csv")) == 4 * 5 and "not measured: no GPU here" in summary
