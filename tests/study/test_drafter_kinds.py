"""Every kind of drafter goes through the commands; what is asked of a kind follows from what it declares."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from support.command_line import Run
from support.tiny_models import PairFolders

from specdraft.commands.options import DONE, USAGE
from specdraft.drafters import registry
from specdraft.drafters.pair import Pair
from specdraft.results.metrics import COUNTS
from specdraft.study.engines import replay

TEXTS = ["one two one two one two one", "def f(x): def f(x): def", "x"]
MORE = {"ngram": ["drafter.variant=trie"], "suffix": ["drafter.earlier=true", "drafter.factor=2"]}
KEYS = ["tree", "budget", "prompt_id"]


@pytest.fixture
def base(tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    monkeypatch.setattr(replay, "pair_costs", lambda *given: None)
    rows = [json.dumps({"question_id": f"p{i}", "prompt": text}) for i, text in enumerate(TEXTS)]
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    return [*pair, "pair.name=tiny", "prompts=jsonl", f"prompts.path={tmp_path / 'p.jsonl'}", "max_new_tokens=16"]


def needs(kind: str, pair: Pair, folder: Path) -> list[str]:
    """What a kind must be told."""
    if kind != "aligned":
        return MORE.get(kind, [])
    weights = {
        f"{role}": files.weights_hash for role, files in zip(("target", "draft"), pair.files.models, strict=True)
    }
    file = folder / "map.safetensors"
    save_file({"weight": torch.eye(32), "bias": torch.zeros(32)}, file, {"kind": "alignment", **weights})
    return [f"drafter.path={file}"]


@pytest.mark.parametrize("kind", sorted(registry()))
def test_a_kind_in_every_command(kind: str, run: Run, base: list[str], tiny_pair: Pair, tmp_path: Path) -> None:
    drafter = [f"drafter={kind}", *needs(kind, tiny_pair, tmp_path)]
    grid = ["tree=chain,kary,measured,best_first", "budget=4", "report=false", "name=kinds", *base, *drafter]
    tables = {}
    for engine in ("replay", "live"):
        out = tmp_path / engine
        assert run("sweep", *grid, f"engine={engine}", "--out", out).code == DONE
        records = pd.read_csv(out / "records.csv").set_index(KEYS).sort_index()
        tables[engine] = records.drop("hindsight", level="tree", errors="ignore")[list(COUNTS)]
    pd.testing.assert_frame_equal(tables["live"], tables["replay"])
    assert set(tables["live"].index.get_level_values("tree")) == {"chain", "kary", "measured", "best_first"}
    assert tables["live"]["accepted_tokens"].sum() > 10
    assert run("report", tmp_path / "replay", "--format", "md").code == DONE
    fitted = run("trees", "fit", "measured", "budget=3", *base, *drafter, "--format", "json")
    assert fitted.code == DONE and len(json.loads(fitted.out)["paths"]) == 3
    alone = [text for text in drafter if "earlier" not in text]
    shown = run("generate", TEXTS[0], *[text for text in base if "prompts" not in text], *alone, "tree=kary", "--json")
    assert shown.code == DONE and json.loads(shown.out)["new_tokens"] == 16


def test_a_drafter_that_reads_earlier_prompts_has_none_in_a_single_one(run: Run, base: list[str]) -> None:
    settings = [text for text in base if "prompts" not in text]
    said = run("generate", "x", *settings, "drafter=suffix", "drafter.earlier=true")
    assert said.code == USAGE
    assert "drafter=suffix-eTrue reads what a study made of earlier prompts; one prompt alone has none" in said.err
    assert said.err.count("\n") == 1
