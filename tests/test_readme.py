"""What the README shows in Python runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_python_block_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(block.replace('load_pair("zoo")', 'load_pair("zoo-tiny")'), names)
    said = capsys.readouterr().out
    assert said.strip()
    if "SpeculativeDecoder" in names:
        result, tree = names["result"], names["tree"]
        ratios = (result.acceptance_rate, result.acceptance_length, result.block_efficiency)
        assert said.startswith(" ".join(map(str, (result.text, *ratios))))
        assert str(tree.attention_mask()) in said


def test_there_is_one() -> None:
    assert BLOCKS
