"""The output layer of a few tokens: the model's own logits, and where it is left to the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny_models import random_model, tiny_llama

from specdraft.models import few_tokens
from specdraft.models.cached_model import CachedModel
from specdraft.models.few_tokens import FewTokens
from specdraft.models.language_model import tail_mask
from specdraft.trees.topology import Topology

TREE = Topology([-1, 0, 0, 1, 2, 4])


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of tests have few ids."""
    monkeypatch.setattr(few_tokens, "FEWEST_IDS", 1)


def tree_logits(model: Any, layers: tuple[int, ...] = ()) -> Any:
    cached = CachedModel(model, 96)
    cached.prefill([5, 6, 7])
    tail = tail_mask(torch.from_numpy(TREE.ancestors), cached.dtype)
    return cached.append(torch.arange(10, 16), torch.from_numpy(TREE.depths), tail, layers)


def biased() -> Any:
    model = random_model("llama", "eager")
    model.set_output_embeddings(torch.nn.Linear(32, 96))
    return model


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt_neox", "opt", "qwen3", "biased"])
def test_logits_and_states_are_the_models_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = biased() if name == "biased" else random_model(name, "eager")
    few = tree_logits(model, (-1, 1))
    assert CachedModel(model, 96)._few_tokens is not None
    monkeypatch.setattr(FewTokens, "of", lambda model: None)
    own = tree_logits(model, (-1, 1))
    assert (few.logits - own.logits).abs().max() < 1e-5 * own.logits.abs().max()
    assert torch.equal(few.hidden, own.hidden)


def test_the_layer_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two to eight tokens go this way, one and nine do not, nor do those whose last logits alone are wanted."""
    asked = []
    forward = FewTokens.forward

    def counting(self: FewTokens, **inputs: Any) -> Any:
        asked.append(inputs["input_ids"].shape[1])
        return forward(self, **inputs)

    model = CachedModel(tiny_llama(), 258)
    assert model._few_tokens is not None
    monkeypatch.setattr(FewTokens, "forward", counting)
    for count in (1, 2, 8, 9):
        model.forward(torch.arange(count)[None])
    model.forward(torch.arange(4)[None], logits_to_keep=1)
    model.forward(torch.arange(8).reshape(2, 4))
    assert asked == [2, 8]


class Scaled(torch.nn.Module):
    """A model that does to its logits what its output layer does not."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner, self.config, self.base_model, self.device = model, model.config, model.base_model, model.device

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()

    def forward(self, **inputs: Any) -> Any:
        out = self.inner(**inputs)
        out.logits = out.logits * 0.5
        return out


def test_what_a_model_does_otherwise_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    assert FewTokens.of(model) is not None
    assert FewTokens.of(Scaled(model)) is None
    assert FewTokens.of(tiny_llama().bfloat16()) is None
    monkeypatch.setattr(few_tokens, "FEWEST_IDS", 16_384)
    assert FewTokens.of(model) is None
