"""`scripts/gpu_check.sh` as it runs where there is no GPU: everything, as small as can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "scripts"
PARTS = [
    *("attention", "llama-1b", "layered-pair", "layered-decode", "live-bfloat16", "certify-bfloat16"),
    *("live-float32", "default", "layered-profile", "llama-8b", "attention-more"),
]


def script_of(name: str) -> Any:
    spec = spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_steps_of_a_small_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = script_of("bench_step")
    monkeypatch.setattr(script, "ROUNDS", 2)
    script.main(tmp_path / "step.json", small=True)
    rows = json.loads((tmp_path / "step.json").read_text())["rows"]
    assert [row["step"] for row in rows] == ["plain", "chain 8", "chain 64", "kary 64", "wide 64", "medusa 63"]
    assert rows[0]["price"] == 1 and all(row["low_s"] <= row["median_s"] <= row["high_s"] for row in rows)


def test_attention_of_ours_in_a_small_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = script_of("bench_step")
    monkeypatch.setattr(script, "ROUNDS", 1)
    monkeypatch.setattr(script, "WARM", 0)
    script.main(tmp_path / "step.json", attention="own,grouped", small=True)
    rows = json.loads((tmp_path / "step.json").read_text())["rows"]
    assert [row["attention"] for row in rows] == ["own"] * 6 + ["grouped"] * 6
    model = script.made(script.ALL | script.SIZES["llama-3.2-1b"] | script.SMALL, torch.device("cpu"))
    own, grouped = (script.attending(model, kind) for kind in ("own", "grouped"))
    assert [one.model.config._attn_implementation for one in (model, own, grouped)] == [
        *("sdpa", "sdpa", "specdraft_grouped")
    ]
    assert {id(weight) for weight in grouped.model.parameters()} == {id(weight) for weight in model.model.parameters()}


def test_where_the_time_of_a_step_goes(tmp_path: Path) -> None:
    script = script_of("profile_step")
    script.main(cache="dynamic", prompts=1, new_tokens=8, out=tmp_path / "profile.json")
    found = json.loads((tmp_path / "profile.json").read_text())["profiles"]["dynamic"]
    shares = found["shares"]
    assert sum(shares.values()) == pytest.approx(1) and found["step_ms"] > 0
    assert shares["compiled code"] == 0 and all(shares[kind] > 0 for kind in ("linear layers", "attention"))
    assert script.kind_of("aten::constant_pad_nd") == "masks and positions"
    assert script.kind_of("aten::rms_norm") == script.OTHER


def test_on_a_gpu_kernels_are_counted_and_nothing_twice() -> None:
    script = script_of("profile_step")
    cpu, cuda = SimpleNamespace(name="CPU"), SimpleNamespace(name="CUDA")
    rows = [("aten::mm", cpu, 5e6), ("ampere_bf16_gemm_128x64", cuda, 5e6), ("_attend", cuda, 1e6), ("silu", cuda, 2e6)]
    seen = SimpleNamespace(
        key_averages=lambda: [
            SimpleNamespace(key=key, device_type=kind, self_device_time_total=spent, self_cpu_time_total=9e6)
            for key, kind, spent in rows
        ]
    )
    found = {script.kind_of(name): seconds for name, seconds in script.own_seconds(seen, on_gpu=True)}
    assert found == {"linear layers": 5, "attention": 1, script.OTHER: 2}


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
    assert len(pd.read_csv(tmp_path / "attention.csv")) == 4 * 6 and "not measured: no GPU here" in summary
