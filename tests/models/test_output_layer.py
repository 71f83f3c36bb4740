"""The output layer on its own says what the model says, whatever the architecture."""

from __future__ import annotations

import pytest
import torch
from support.tiny_models import ARCHITECTURES, SMALL_VOCAB, random_model

from specdraft.errors import ModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.output_layer import OutputLayer


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_the_models(name: str) -> None:
    model = random_model(name)
    layer, ids = OutputLayer(CachedModel(model, SMALL_VOCAB), name), torch.arange(3, 15)[None]
    with torch.inference_mode():
        whole = model(ids, output_hidden_states=True)
        torch.testing.assert_close(layer(whole.hidden_states[-1]), whole.logits, atol=1e-4, rtol=1e-4)
    assert layer.width == 32


def test_gradients_reach_states_only() -> None:
    model = random_model("gemma2")
    layer, states = OutputLayer(CachedModel(model, SMALL_VOCAB), "x"), torch.randn(2, 32, requires_grad=True)
    layer(states).square().sum().backward()
    assert states.grad is not None and states.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in model.parameters())


def test_another_layer_is_refused() -> None:
    model = random_model("llama")
    model.set_output_embeddings(torch.nn.Bilinear(2, 2, 2))
    with pytest.raises(ModelError, match="mine: its output layer is Bilinear; a head on its states needs a linear one"):
        OutputLayer(CachedModel(model, SMALL_VOCAB), "mine")
