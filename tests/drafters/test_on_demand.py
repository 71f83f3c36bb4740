"""A pair that is known before it is loaded: it says what the loaded one says, and loads what is asked for alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import VOCAB, byte_tokenizer, change_json, save_model, tiny_llama

from specdraft.config import load_group
from specdraft.drafters.base import DrafterSpec
from specdraft.drafters.draft_model import Model
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.on_demand import PairOnDemand
from specdraft.drafters.pair import Pair, load_pair
from specdraft.models import loading
from specdraft.models.placement import dtype_name
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.traces.memory import StoredMemory
from specdraft.traces.store import TraceStore


class Nothing:
    """A memory that keeps nothing."""

    def recall(self, about: Mapping[str, Any]) -> None:
        return None

    def keep(self, about: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        return None


def padded(folder: Path) -> PairSpec:
    """Two heads that are padded to different sizes, with more ids in the target's tokenizer than in the drafter's; the
    target ends a text with two ids of its generation settings, the drafter's come from its config."""
    target, draft = tiny_llama(vocab_size=VOCAB + 20), tiny_llama(num_hidden_layers=2, vocab_size=VOCAB + 7)
    save_model(folder / "t", target, byte_tokenizer(extra_tokens=("Ġend", "Ġword")))
    save_model(folder / "d", draft)
    change_json(folder / "t" / "generation_config.json", eos_token_id=[VOCAB, 7], repetition_penalty=1.2)
    (folder / "d" / "generation_config.json").unlink()
    return PairSpec("padded", *(ModelSpec(str(folder / name), device="cpu") for name in "td"))


def halved(folder: Path) -> PairSpec:
    spec = padded(folder)
    (folder / "t" / "generation_config.json").unlink()
    spec.target.dtype = "bfloat16"
    return spec


PAIRS: dict[str, tuple[Any, DrafterSpec]] = {
    "zoo-tiny": ("zoo-tiny", Model()),
    "zoo-distilled": ("zoo-distilled", Model()),
    "padded vocabularies": (padded, Model()),
    "without generation settings, in 16 bits": (halved, Model()),
    "a drafter without weights": (padded, Ngram()),
}


@pytest.mark.parametrize("case", PAIRS)
def test_files_say_what_the_loaded_pair_says(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, drafter = PAIRS[case]
    spec = load_group("pair", given, PairSpec) if isinstance(given, str) else given(tmp_path)
    loaded = load_pair(spec, drafter)
    known = PairOnDemand(loaded.files, memory := StoredMemory(TraceStore(tmp_path / "traces")))
    with monkeypatch.context() as patch:
        patch.setattr(loading, "load_model", lambda *given: pytest.fail("a model was loaded"))
        facts = said(known)
    assert facts == said(loaded)
    assert facts["vocab"] == loaded.target.vocab
    description, check = known.describe(), known.target_check  # loaded here, and kept
    monkeypatch.setattr(loading, "load_model", lambda *given: pytest.fail("a model was loaded"))
    again = PairOnDemand(loaded.files, memory)
    assert again.describe() == description == loaded.describe()
    assert again.target_check == check == loaded.target_check


def said(pair: Pair) -> dict[str, Any]:
    files = pair.files
    return {
        "target": pair.target_facts,
        "draft": pair.draft_facts,
        "traits": pair.traits,
        "eos": pair.eos_ids,
        "label": pair.label,
        "vocab": files.target.vocab(),
        "dtype": dtype_name(files.target),
    }
