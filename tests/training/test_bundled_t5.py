"""The bundled encoder-decoder pair."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from support.command_line import Run

from specdraft.drafters.pair import Pair, load_pair
from specdraft.models.files import zoo_folder
from specdraft.study.generate import SpeculativeDecoder

MOST_BYTES = 3e6


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair("zoo-t5")


def test_it_is_small_and_whole() -> None:
    folders = [zoo_folder() / name for name in ("target-t5", "draft-t5")]
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) < MOST_BYTES
    assert all((folder / "model.safetensors").exists() for folder in folders)


def test_it_copies(pair: Pair) -> None:
    result = SpeculativeDecoder(pair, "kary", budget=6).generate("The captain went to sea.")
    assert result.text == "The captain went to sea."
    assert result.block_efficiency is not None
    assert result.block_efficiency > 1.5
    assert result.token_ids[-1] in pair.eos_ids


def test_texts_survive_the_tokenizer(pair: Pair) -> None:
    for text in ("He paid 192 crowns, or 3d a day.", "for i in range(10):\n    print(i)", "It was na\u00efve."):
        assert pair.decode(pair.encode(text)) == text


@pytest.mark.slow
def test_what_it_gets_accepted(tmp_path: Path, run: Run) -> None:
    asked = ["pair=zoo-t5", "tree=chain,kary", "budget=4,8", "prompts.limit=16", "cost.measure=off", "report=false"]
    assert run("sweep", *asked, "--out", tmp_path / "study").code == 0
    summary = pd.read_csv(tmp_path / "study" / "summary.csv")
    assert summary["block_efficiency"].min() > 1.7
