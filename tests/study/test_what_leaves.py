"""What a study's files and lines tell of the machine that it ran on, and what they do to who reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.command_line import Run, one_line
from support.tiny_models import PairFolders

from specdraft.config import Settings
from specdraft.errors import ConfigError, ModelError, PromptError
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.results.study_tables import load_study
from specdraft.study.status import INCOMPLETE, study_status

ODD_ID, ODD_CATEGORY = "=cmd|' /C calc'!A0", "@SUM(1)"


@pytest.fixture
def models(tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `target`, and `nan`: a draft of which one weight is no number."""
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    shutil.copytree(tiny_pair_folders.target, tmp_path / "my models" / "target")
    shutil.copytree(tiny_pair_folders.draft, tmp_path / "my models" / "nan")
    weights = tmp_path / "my models" / "nan" / "model.safetensors"
    save_file(load_file(weights) | {"model.norm.weight": torch.full((32,), torch.nan)}, weights)
    row = {"question_id": ODD_ID, "category": ODD_CATEGORY, "prompt": "the ship"}
    (tmp_path / "my models" / "odd.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "my models"


def test_paths_stay_here_and_formulas_are_texts(models: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    shared = [f"pair.target.path='{models}/target'", "prompts=jsonl", f"prompts.path='{models}/odd.jsonl'"]
    shared += ["budget=1,2", "max_new_tokens=4", "report=false", "--out", str(out)]
    pair = [f"pair.draft.path='{models}/target'", "pair.name='-a'"]
    said = run("sweep", *pair, "tree=paths", "tree.paths=[[0],[1]]", *shared)
    assert (said.code, said.err.count("failed")) == (0, 0), said
    assert json.loads((out / "manifest.json").read_text())["skipped"]
    said = run("sweep", f"pair.draft.path='{models}/nan'", "pair.name=n", "tree=wide", *shared)
    assert said.code == 3
    (failed,) = [line for line in said.err.splitlines() if line.startswith("failed: ")]
    problem = f"{models}/nan: the weights are damaged: model.norm.weight holds NaN or infinity"
    assert failed.split(maxsplit=3)[3] == f"combinations of n: {problem}"
    status = study_status(out)
    assert (status.state, status.rows_left) == (INCOMPLETE, 0)
    assert status.rows is not None and status.rows["given_up"] == status.failed > 0
    written = [path for path in out.iterdir() if path.is_file()]
    assert {path.name for path in written} >= {"config.yaml", "failures.jsonl", "manifest.json", "journal.jsonl"}
    for path in written:
        assert str(tmp_path).encode() not in path.read_bytes(), path
        assert b"my models" not in path.read_bytes(), path
    study = load_study(out)
    assert study.config["prompts"]["path"] == "odd.jsonl"
    assert study.records[["pair", "prompt_id", "category"]].drop_duplicates().to_numpy().tolist() == [
        ["-a", ODD_ID, ODD_CATEGORY]
    ]
    raw = pd.read_csv(out / "records.csv")
    assert raw.loc[0, ["pair", "prompt_id", "category"]].tolist() == ["'-a", f"'{ODD_ID}", f"'{ODD_CATEGORY}"]


@pytest.mark.parametrize(
    ("row", "key"),
    [({"question_id": "a\x1b[31m"}, "question_id='a\\x1b[31m'"), ({"category": "b\r"}, "category='b\\r'")],
)
def test_control_characters_in_ids_are_refused(row: dict[str, str], key: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row | {"prompt": "x"}) + "\n")
    with pytest.raises(PromptError) as caught:
        load_prompts(PromptSpec("jsonl", str(path)))
    assert str(caught.value) == f"{path}, line 1: {key} has control characters; expected a name that can be printed"


@pytest.mark.parametrize("key", ["pair.name", "pair.target.path", "name"])
def test_control_characters_in_names_are_refused(key: str) -> None:
    odd = "\x1b[31mred"
    specs = {
        "pair.name": PairSpec(odd, ModelSpec("x"), ModelSpec("x")),
        "pair.target.path": PairSpec("p", ModelSpec(odd), ModelSpec("x")),
        "name": Settings(name=odd),
    }
    with pytest.raises(ConfigError) as caught:
        specs[key].check()
    assert str(caught.value).startswith(f"{key}='\\x1b[31mred' has control characters; expected")


def test_what_an_error_quotes_does_nothing_to_a_terminal(run: Run) -> None:
    assert str(ModelError("a\x1b[31mb\tc")) == "a\\x1b[31mb\tc"
    line = one_line(run("sweep", "--dry-run", "tree=\x1b[31mchain"))
    assert "\x1b" not in line
    assert "\\x1b[31mchain" in line
