"""Attention of our own in models: what they say is what they said before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.decoded import KARY, models, texts_of
from support.tiny_models import ARCHITECTURES, GROUPED, SIZES, PairFolders
from transformers import AutoConfig, AutoModelForCausalLM

from specdraft.decoding.batch import Batch
from specdraft.decoding.seat import Seat
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.errors import ConfigError, ModelError, UnsupportedModelError
from specdraft.models import tree_attention
from specdraft.models.cached_model import CachedModel
from specdraft.models.facts import facts_of_files
from specdraft.models.files import find_model
from specdraft.models.graph_model import GraphModel
from specdraft.models.loading import load_model
from specdraft.models.self_check import self_check
from specdraft.models.spec import ModelSpec
from specdraft.models.static_model import StaticModel
from specdraft.models.tree_attention import with_attention

WIDE_HEADS: dict[str, dict[str, Any]] = {  # of 16, as the kernel wants them
    "llama": GROUPED | {"head_dim": 16},
    "qwen3": GROUPED | {"head_dim": 16},
    "gpt_neox": SIZES | {"hidden_size": 64},
}


def model(kind: str, settings: dict[str, Any], attention: str) -> CachedModel:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    return CachedModel(with_attention(made, attention), 90)


def tree_logits(one: CachedModel, prompt: int = 20) -> torch.Tensor:
    """Of a branching tree, in two forwards, after a prompt."""
    one.reset()
    one.prefill(list(range(2, prompt + 2)))
    seen = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 0, 1]]).bool()
    hidden = torch.finfo(torch.float32).min
    tail = torch.zeros(5, 5).masked_fill(~seen, hidden)
    offsets = torch.tensor([0, 1, 1, 2, 2])
    first = one.append(torch.tensor([5, 6, 7]), offsets[:3], tail[:3, :3]).logits
    return torch.cat([first, one.append(torch.tensor([8, 9]), offsets[3:], tail[3:]).logits])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_grouped_heads_say_what_they_did(name: str) -> None:
    kind, settings, _ = ARCHITECTURES[name]
    own, other = (model(kind, settings, attention) for attention in ("own", "grouped"))
    expected, found = tree_logits(own), tree_logits(other)
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    before, after = (one.model.config._attn_implementation for one in (own, other))
    shares = "num_key_value_heads" in settings
    assert (before, after) == ("sdpa", "specdraft_grouped") if shares and before == "sdpa" else before == after


def test_most_of_them_can_be_told() -> None:
    told = [
        name
        for name, (kind, settings, _) in ARCHITECTURES.items()
        if model(kind, settings, "grouped").model.config._attn_implementation == "specdraft_grouped"
    ]
    assert {"llama", "qwen2", "qwen3", "mistral", "mistral-sliding", "gemma3"} <= set(told)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The queries of each call of the kernel."""
    if sys.platform != "linux":
        pytest.skip("Triton is for Linux")
    from specdraft.attention import tree_decode as module

    shapes, kernel = list[tuple[int, ...]](), module.tree_decode

    def counting(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, tail: Any, *more: Any) -> torch.Tensor:
        shapes.append(tuple(query.shape))
        assert tail.longest >= int(tail.starts.max())
        return kernel(query, keys, values, tail, *more)

    monkeypatch.setattr(module, "tree_decode", counting)
    yield shapes


@pytest.mark.parametrize("kind", WIDE_HEADS)
def test_the_kernel_says_what_they_did(kind: str, launches: list[tuple[int, ...]]) -> None:
    own, other = (model(kind, WIDE_HEADS[kind], attention) for attention in ("own", "triton"))
    expected = tree_logits(own)
    assert not launches
    assert torch.allclose(tree_logits(other), expected, atol=1e-5 * float(expected.abs().max()))
    assert [shape[2] for shape in launches] == [3, 3, 3, 2, 2, 2]  # each layer of each forward, not of the prompt


def test_fixed_slots_and_batches_do_so_too(launches: list[tuple[int, ...]]) -> None:
    own, other = (model("llama", WIDE_HEADS["llama"], attention) for attention in ("own", "triton"))
    draft = models("llama")[1]
    texts = texts_of(KARY)[1:4]
    expected = [text(Seat(Verifier(own), ModelDrafter(draft))) for text in texts]
    assert texts[0](Seat(Verifier(StaticModel(other)), ModelDrafter(draft))) == expected[0]
    assert {shape[2] for shape in launches} == {9}  # filled up
    launches.clear()
    found = {ended.number: ended.result for ended in Batch[Any](other, ModelDrafter(draft), 2).decode(texts)}
    assert [found[number] for number in range(len(texts))] == expected
    assert {shape[0] for shape in launches} == {1, 2}


def test_a_graph_is_given_the_tail_anew(launches: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recorded forward reads are the tensors of the first one, which later ones are copied into."""

    def held(self: GraphModel, inputs: Any, layers: Any) -> Any:
        from specdraft.models.graph_model import _copied, _tensors

        kept = _copied(inputs)

        def run(given: Any) -> Any:
            for into, value in zip(_tensors(kept), _tensors(given), strict=True):
                into.copy_(value)
            return self._eager(kept, layers)

        return run, run(inputs)

    monkeypatch.setattr(GraphModel, "_compiled", held)
    own, other = (model("llama", WIDE_HEADS["llama"], attention) for attention in ("own", "triton"))
    graph = GraphModel(other)
    draft = models("llama")[1]
    text = texts_of(KARY)[1]
    assert text(Seat(Verifier(graph), ModelDrafter(draft))) == text(Seat(Verifier(own), ModelDrafter(draft)))
    assert launches and not graph.failed and {shape.tail for shape in graph.made} == {32}


@pytest.mark.parametrize("fault", ["starts", "bits"])
def test_a_wrong_tail_is_refused_at_load(
    fault: str, launches: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tree_attention.tails

    def wrong(*given: Any) -> Any:
        tail = right(*given)
        changed = tail.starts - 1 if fault == "starts" else tail.bits.roll(1, 1)
        return tail._replace(**{fault: changed})

    one = model("llama", WIDE_HEADS["llama"], "triton")
    self_check(one, "tiny")
    monkeypatch.setattr("specdraft.models.cached_model.tails", wrong)
    with pytest.raises(UnsupportedModelError, match="self-check failed"):
        self_check(one, "tiny")


def test_windows_and_small_heads_are_left_to_transformers(launches: list[tuple[int, ...]]) -> None:
    for kind, settings in (("mistral", ARCHITECTURES["mistral-sliding"][1] | {"head_dim": 16}), ("llama", GROUPED)):
        own, other = (model(kind, settings, attention) for attention in ("own", "triton"))
        expected = tree_logits(own)
        assert torch.allclose(tree_logits(other), expected, atol=1e-5 * float(expected.abs().max()))
    assert not launches


def attention_of(folders: PairFolders, **spec: Any) -> str:
    loaded = load_model(find_model(ModelSpec(str(folders.target), device="cpu", **spec), "pair.target"))
    return str(loaded.model.config._attn_implementation)


def test_a_spec_says_how_its_layers_attend(tiny_pair_folders: PairFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention_of(tiny_pair_folders) == "specdraft_grouped"
    assert attention_of(tiny_pair_folders, attention="own") == "sdpa"
    monkeypatch.setattr("triton.knobs.runtime.interpret", False)
    with pytest.raises(ConfigError, match="attention=triton needs a GPU; expected own or grouped on cpu"):
        attention_of(tiny_pair_folders, attention="triton")
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"attention=triton has no effect: its heads have 8 dim"):
        attention_of(tiny_pair_folders, attention="triton")
    monkeypatch.setattr("specdraft.models.placement.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="attention=triton: triton is not installed"):
        attention_of(tiny_pair_folders, attention="triton")
    with pytest.raises(ConfigError, match=r"pair\.target\.attention='tritn' is not known; did you mean 'triton'"):
        ModelSpec("x", attention="tritn").check("pair.target")


def test_models_that_the_kernel_is_not_for() -> None:
    reasons = {
        name: tree_attention.no_kernel_for(model(kind, settings | {"head_dim": 16}, "own").model)
        for name, (kind, settings, _) in ARCHITECTURES.items()
        if name in ("llama", "mistral-sliding", "gpt_oss")
    }
    assert reasons == {
        "llama": "",
        "mistral-sliding": "it has a sliding window",
        "gpt_oss": "its layers attend by eager",
    }
    assert not tree_attention._takes_heads(256, torch.float32) and tree_attention._takes_heads(256, torch.bfloat16)


def test_only_a_chosen_attention_is_part_of_what_decides(tiny_pair_folders: PairFolders) -> None:
    auto, own = (ModelSpec(str(tiny_pair_folders.target), device="cpu", attention=kind) for kind in ("auto", "own"))
    for said in (lambda spec: spec.decides, lambda spec: facts_of_files(find_model(spec, "pair.target"))):
        assert "attention" not in said(auto) and said(own)["attention"] == "own"


@pytest.mark.parametrize("attend", [tree_attention.grouped, tree_attention.by_triton])
def test_what_is_more_than_attention_is_left_to_transformers(attend: Any) -> None:
    query, keys, mask = torch.ones(1, 4, 2, 16), torch.ones(1, 2, 5, 16), torch.zeros(1, 1, 2, 5)
    layer = SimpleNamespace(num_key_value_groups=2)
    assert attend(layer, query, keys, keys, mask, scaling=1.0)[0].shape == (1, 2, 4, 16)
    with pytest.raises(ValueError, match="softcap"):
        attend(layer, query, keys, keys, mask, scaling=1.0, softcap=30.0)


def test_masks_may_be_bool_and_half() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 6, 3, 8), (2, 2, 7, 8), (2, 2, 7, 8))
    query, keys, values = (torch.randn(shape, generator=generator) for shape in shapes)
    seen = torch.rand(2, 1, 3, 7, generator=generator) < 0.6
    seen[..., 0] = True
    layer = SimpleNamespace(num_key_value_groups=3)
    expected = tree_attention._usual(layer, query, keys, values, seen, {"scaling": 0.3})[0]
    assert torch.allclose(tree_attention.grouped(layer, query, keys, values, seen, scaling=0.3)[0], expected, atol=1e-6)
    one = tree_attention.grouped(layer, query[:, :, :1], keys, values, seen[:, :, :1], scaling=0.3)[0]
    assert torch.allclose(one, expected[:, :1], atol=1e-6)
    half = [tensor.half() for tensor in (query, keys, values)]
    additive = torch.zeros(seen.shape).masked_fill(~seen, -6e4).half()
    assert torch.allclose(tree_attention.grouped(layer, *half, additive, scaling=0.3)[0].float(), expected, atol=5e-3)
