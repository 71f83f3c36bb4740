from __future__ import annotations

from pathlib import Path

import pytest
import torch

from specdraft.errors import OUT_OF_MEMORY, ModelError
from specdraft.study.failures import Failure, Failures, explain, write_failures

FIRST, SECOND = (Failure(name, None, "RuntimeError: boom", f"tree={name}") for name in ("chain", "kary"))


def test_earlier_ones_stand_until_they_are_done(tmp_path: Path) -> None:
    write_failures(tmp_path, [FIRST, SECOND])
    failures = Failures(tmp_path)
    assert (failures.now, "kary" in failures) == ([], False)
    assert failures.standing(done=()) == [FIRST, SECOND]
    assert failures.standing(done={"chain"}) == [SECOND]


def test_the_last_failure_of_a_combination_is_kept(tmp_path: Path) -> None:
    write_failures(tmp_path, [FIRST, SECOND])
    failures = Failures(tmp_path)
    for error in ("one", "bug: two"):
        failures.add(Failure("kary", "a", error, "tree=kary"))
    (now,) = failures.now
    assert (now.error, now.is_bug, FIRST.is_bug) == ("bug: two", True, False)
    assert "kary" in failures
    assert failures.standing(done={"kary"}) == [FIRST, now]


@pytest.mark.parametrize("text", ["{", "[1]\n", '{"combination": "a"}\n', "3\n"])
def test_a_file_that_cannot_be_read_holds_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "failures.jsonl").write_text(text)
    assert Failures(tmp_path).standing(done=()) == []


def test_errors_in_one_line() -> None:
    assert explain(RuntimeError("boom\nat length")) == "RuntimeError: boom"
    assert explain(KeyError()) == "KeyError: "
    assert explain(ModelError("pair.target.path=x: no such folder")) == "pair.target.path=x: no such folder"
    assert explain(torch.cuda.OutOfMemoryError("Tried to allocate 20 GiB")) == OUT_OF_MEMORY
    words = "[enforce fail at alloc_cpu.cpp:120] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
    for error in (RuntimeError(words), MemoryError("Unable to allocate 9 TiB")):
        assert explain(error) == "out of memory; try a smaller budget, a shorter prompt, or a smaller model"
