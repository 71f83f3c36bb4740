"""Linear layers over a few tokens: the model's own outputs, and where it is left to its own layers."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.tiny_models import PairFolders, byte_tokenizer, random_model, tiny_llama

from specdraft.drafters.draft_model import Model
from specdraft.drafters.pair import load_pair, pair_of_models
from specdraft.models import few_tokens
from specdraft.models.cached_model import CachedModel
from specdraft.models.few_tokens import FewTokenLinear, lay_out, suit_few_tokens
from specdraft.models.first_layers import share_first_layers
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
def test_logits_and_states_are_the_models_own(name: str) -> None:
    model = biased() if name == "biased" else random_model(name, "eager")
    own = tree_logits(model, (-1, 1))
    few = tree_logits(suit_few_tokens(copy.deepcopy(model)), (-1, 1))
    assert (few.logits - own.logits).abs().max() < 1e-5 * own.logits.abs().max()
    assert (few.hidden - own.hidden).abs().max() < 1e-5 * own.hidden.abs().max()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 5), (1, 8), (1, 9), (2, 4), (3,), (0, 4)])
def test_every_shape_gives_what_a_linear_layer_gives(bias: bool, shape: tuple[int, ...]) -> None:
    layer = torch.nn.Linear(16, 12, bias=bias)
    states = torch.randn(*shape, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(FewTokenLinear(layer)(states), layer(states))
    torch.testing.assert_close(FewTokenLinear(layer)(states[..., :1, :]), layer(states[..., :1, :]))


def orders(layer: Any, counts: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of tokens that are not left to the layer's own order."""
    own: list[int] = []
    linear = F.linear

    def counting(states: torch.Tensor, *given: Any) -> torch.Tensor:
        own.append(states.numel() // states.shape[-1])
        return linear(states, *given)

    monkeypatch.setattr(torch.nn.functional, "linear", counting)
    for count in counts:
        layer(torch.randn(1, count, 16))
    return [count for count in counts if count not in own]


@pytest.mark.parametrize(("threads", "least_ids", "most"), [(1, 100, 4), (2, 100, 8), (1, 10, 8)])
def test_which_numbers_of_tokens_are_few(
    threads: int, least_ids: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_tokens, "FEWEST_IDS", least_ids)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    layer = FewTokenLinear(torch.nn.Linear(16, 12))
    assert orders(layer, [*range(1, 11)], monkeypatch) == [*range(2, most + 1)]
    assert orders(partial(side_by_side, layer), [*range(1, 11)], monkeypatch) == [*range(2, most + 1)]


def side_by_side(layer: Any, states: torch.Tensor) -> torch.Tensor:
    """One token of each text."""
    said: torch.Tensor = layer(states.transpose(0, 1))
    return said


def test_weights_and_their_names_stay_as_they_are() -> None:
    model = tiny_llama()
    weights, tied = dict(model.state_dict()), model.get_output_embeddings().weight
    suited = suit_few_tokens(model)
    assert {name: tensor.data_ptr() for name, tensor in suited.state_dict().items()} == {
        name: tensor.data_ptr() for name, tensor in weights.items()
    }
    assert suited.get_output_embeddings().weight is tied
    layer = suited.get_output_embeddings()
    assert isinstance(layer, FewTokenLinear)
    assert (layer.in_features, layer.out_features, layer.training) == (tied.shape[1], tied.shape[0], False)


def test_first_layers_have_them_too() -> None:
    model = CachedModel(suit_few_tokens(tiny_llama()), 258)
    first = share_first_layers(model, 1, "tiny").model
    assert isinstance(first.get_output_embeddings(), FewTokenLinear)


def count(model: Any) -> int:
    return sum(isinstance(layer, FewTokenLinear) for layer in suit_few_tokens(model).modules())


def test_other_types_and_small_vocabularies_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count(tiny_llama()) > 7
    assert count(tiny_llama().bfloat16()) == 0
    monkeypatch.setattr(few_tokens, "FEWEST_IDS", 16_384)
    assert count(tiny_llama()) == 0


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt_neox", "opt", "qwen3", "biased"])
def test_small_layers_are_laid_out_and_say_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_tokens, "FEWEST_IDS", 16_384)
    model = biased() if name == "biased" else random_model(name, "eager")
    own = tree_logits(model, (-1, 1))
    suited = lay_out(suit_few_tokens(copy.deepcopy(model)))
    assert all(torch.equal(suited.state_dict()[key], weight) for key, weight in model.state_dict().items())
    linear = [layer.weight for layer in suited.modules() if type(layer) is torch.nn.Linear]
    assert all(weight.t().is_contiguous() for weight in linear)
    laid = tree_logits(suited, (-1, 1))
    assert (laid.logits - own.logits).abs().max() < 1e-5 * own.logits.abs().max()
    assert (laid.hidden - own.hidden).abs().max() < 1e-5 * own.hidden.abs().max()


def test_large_layers_and_what_is_tied_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_tokens, "MOST_LAID_OUT", 1)
    assert all(weight.is_contiguous() for weight in lay_out(tiny_llama()).parameters())
    monkeypatch.setattr(few_tokens, "MOST_LAID_OUT", 2**18)
    tied = tiny_llama()
    tied.get_output_embeddings().weight = tied.get_input_embeddings().weight
    assert lay_out(tied).get_output_embeddings().weight is tied.get_input_embeddings().weight


def test_first_layers_have_the_weights_of_the_whole_model_laid_out_or_not() -> None:
    for whole in (tiny_llama(), lay_out(tiny_llama())):
        first = share_first_layers(CachedModel(whole, 258), 1, "tiny").model
        layer = "model.layers.0.mlp.up_proj.weight"
        assert first.get_parameter(layer).data_ptr() == whole.get_parameter(layer).data_ptr()


def test_a_loaded_model_has_them_and_a_given_one_stays_as_it_is(tiny_pair_folders: PairFolders) -> None:
    loaded = load_pair(tiny_pair_folders.spec()).target.model
    assert isinstance(loaded.get_output_embeddings(), FewTokenLinear)
    given = tiny_llama()
    own = [type(layer) for layer in given.modules()]
    pair_of_models(given, tiny_llama(), byte_tokenizer(), Model())
    assert [type(layer) for layer in given.modules()] == own
