"""The authors' pickles of Medusa heads: equal tensors as safetensors, and nothing of a file that is run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.command_line import Run, one_line

from specdraft.commands.options import DONE
from specdraft.drafters.medusa import Medusa
from specdraft.drafters.pair import find_pair
from specdraft.errors import ResultsError
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.training.imported_heads import import_heads

ZOO_WIDTH, ZOO_ROWS = 160, 4096


def heads(count: int = 2, prefix: str = "", rows: int | None = 12, width: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    made = {}
    for i in range(count):
        made |= {f"{prefix}{i}.0.linear.weight": torch.randn(width, width, generator=generator).half()}
        made |= {f"{prefix}{i}.0.linear.bias": torch.randn(width, generator=generator).half()}
        made |= {f"{prefix}{i}.1.weight": torch.randn(rows, width, generator=generator).half()} if rows else {}
    return made


@pytest.mark.parametrize("prefix", ["", "medusa_head."])
@pytest.mark.parametrize("old", [False, True])
def test_tensors_stay_as_they_are(prefix: str, old: bool, tmp_path: Path, run: Run) -> None:
    """In both of torch's forms of a pickle; tensors may be views of one storage."""
    written = heads(3, prefix)
    written[f"{prefix}2.0.linear.weight"] = written[f"{prefix}1.0.linear.weight"]
    torch.save(written, tmp_path / "h.pt", _use_new_zipfile_serialization=not old)
    said = run("heads", "import", tmp_path / "h.pt", "--out", tmp_path / "deep" / "heads", "--json")
    assert said.code == DONE, said
    assert json.loads(said.out) == {
        "folder": str(tmp_path / "deep" / "heads"), "heads": 3, "blocks": 1, "width": 8, "rows": 12, "dtype": "float16",
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "deep").rglob("*")} == {
        "heads",
        "medusa_lm_head.safetensors",
        "config.json",
    }
    read = load_file(tmp_path / "deep" / "heads" / "medusa_lm_head.safetensors")
    assert read.keys() == {name.removeprefix(prefix) for name in written}
    assert all(torch.equal(read[name.removeprefix(prefix)], tensor) for name, tensor in written.items())
    config = json.loads((tmp_path / "deep" / "heads" / "config.json").read_text())
    assert config == {"medusa_num_heads": 3, "medusa_num_layers": 1, "hidden_size": 8, "vocab_size": 12}


def test_what_is_written_is_what_a_pair_takes(tmp_path: Path) -> None:
    torch.save(heads(4, rows=None, width=ZOO_WIDTH), tmp_path / "h.pt")
    made = import_heads(tmp_path / "h.pt", tmp_path / "heads")
    assert made.rows is None
    spec = Medusa(path=str(tmp_path / "heads"))
    files = find_pair(PairSpec("zoo", ModelSpec("zoo:target")), spec)
    assert files.draft is not None
    assert [head.output for head in spec.names(files.draft).heads] == [None] * 4  # type: ignore[arg-type]


class Malicious:
    """What a pickle may do when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("by", [torch.save, lambda held, path: path.write_bytes(pickle.dumps(held))])
def test_a_malicious_pickle_is_refused_and_not_run(by: Any, tmp_path: Path, run: Run) -> None:
    trace = tmp_path / "it-ran"
    by(heads() | {"0.1.weight": Malicious(f"touch {trace}")}, tmp_path / "h.pt")
    said = run("heads", "import", tmp_path / "h.pt", "--out", tmp_path / "heads")
    assert "h.pt: refused by torch.load(weights_only=True), nothing of it was run" in one_line(said)
    assert [path.name for path in tmp_path.iterdir()] == ["h.pt"]
    pickle.loads(pickle.dumps(Malicious(f"touch {trace}")))  # it would have
    assert trace.exists()


def changed(**more: Any) -> dict[str, Any]:
    return heads() | {name.replace("__", "."): value for name, value in more.items()}


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([1, 2], "expected a state dict"),
        ({}, "expected a state dict"),
        (changed(**{"0__1__weight": "text"}), "expected a state dict"),
        (changed(**{"0__1__weight": torch.full((12, 8), torch.nan)}), "numbers that are finite"),
        (changed(**{"0__1__weight": torch.zeros(12, 8, dtype=torch.int64)}), "expected a state dict"),
        (changed(**{"0__1__weight": torch.zeros(11, 8)}), "1.1.weight is 12 x 8; heads of this target have 11 x 8"),
        (changed(**{"1__0__linear__weight": torch.zeros(8, 7)}), "1.0.linear.weight is 8 x 7"),
        (changed(extra=torch.zeros(1)), "extra is no part of Medusa heads in the authors' layout"),
        ({"blocks.0.layers.0.weight": torch.zeros(8, 8)}, "is in vLLM's layout; expected the authors'"),
        ({"lm_head.weight": torch.zeros(8, 8)}, "no layout of Medusa heads is known that has lm_head.weight"),
        ({k: v for k, v in heads().items() if k != "1.1.weight"}, "head 1 lacks its output layer"),
    ],
)
def test_pickles_that_hold_no_heads(held: Any, words: str, tmp_path: Path, run: Run) -> None:
    torch.save(held, tmp_path / "h.pt")
    said = run("heads", "import", tmp_path / "h.pt", "--out", tmp_path / "heads")
    assert words in one_line(said)
    assert [path.name for path in tmp_path.iterdir()] == ["h.pt"]


def test_files_and_folders_that_cannot_be_meant(tmp_path: Path, run: Run) -> None:
    def said(file: str) -> str:
        return one_line(run("heads", "import", tmp_path / file, "--out", tmp_path / "out"))

    assert "h.pt: no such file; expected a pickle of heads" in said("h.pt")
    assert "is a folder; expected a pickle" in said("")
    (tmp_path / "h.pt").write_bytes(b"")
    assert "it is damaged, or no pickle of tensors alone" in said("h.pt")
    torch.save(heads(), tmp_path / "h.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "h.pt").read_bytes()[:500])
    assert "it is damaged, or no pickle of tensors alone" in said("cut.pt")
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert "is no pickle: drafter.path=DIR takes a folder of safetensors" in said("x.safetensors")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("mine")
    assert "out: is there already; expected a folder that is empty or not there yet" in said("h.pt")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    torch.save(heads(), tmp_path / "h.pt")
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ResultsError, match="No space left on device"):
        import_heads(tmp_path / "h.pt", tmp_path / "heads")
    assert [path.name for path in tmp_path.iterdir()] == ["h.pt"]
