from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.tiny_models import ARCHITECTURES, GROUPED, SMALL_VOCAB, WINDOW, random_model, tiny_llama
from transformers import AutoConfig

from specdraft.drafters.pair import Pair
from specdraft.errors import UnsupportedModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.facts import describe_model
from specdraft.models.files import ModelFiles
from specdraft.models.gate import AttentionLayout, attention_layout, cache_name, check_supported
from specdraft.models.language_model import Forward, tail_mask
from specdraft.models.self_check import self_check
from specdraft.models.spec import ModelSpec
from specdraft.trees.topology import Topology

PROMPT = 11
CASES = [
    (name, attention)
    for name in ARCHITECTURES
    for attention in ("eager", "sdpa")
    if (name, attention) not in (("gemma2", "sdpa"), ("gpt_oss", "sdpa"))
]


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(2, SMALL_VOCAB, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def sequential(model: CachedModel, text: Sequence[int]) -> torch.Tensor:
    return model.model(input_ids=torch.tensor([list(text)]), use_cache=False).logits[0, -1, : model.vocab]


def along_every_path(model: CachedModel, text: list[int], topology: Topology, tokens: list[int]) -> torch.Tensor:
    """`[n + 1, vocab]` cache-free logits after `text` and each node's path."""
    return torch.stack(
        [
            sequential(model, text + [t for t, seen in zip(tokens, row, strict=True) if seen])
            for row in topology.ancestors
        ]
    )


def append_tree(model: CachedModel, topology: Topology, tokens: list[int]) -> torch.Tensor:
    """A whole tree in one forward, as the verifier does."""
    tail = tail_mask(torch.from_numpy(topology.ancestors), model.dtype)
    return model.append(torch.tensor(tokens), torch.from_numpy(topology.depths), tail).logits


def append_by_level(model: CachedModel, topology: Topology, tokens: list[int]) -> torch.Tensor:
    """A tree listed depth by depth, one forward per depth, as the drafter does."""
    logits, ancestors = [], torch.from_numpy(topology.ancestors)
    for depth in range(topology.depth + 1):
        nodes = torch.from_numpy(topology.depths == depth).nonzero()[:, 0]
        tail = tail_mask(ancestors[nodes, : int(nodes[-1]) + 1], model.dtype)
        logits.append(model.append(torch.tensor(tokens)[nodes], torch.from_numpy(topology.depths)[nodes], tail).logits)
    return torch.cat(logits)


WIDE = Topology([-1, 0, 0, 0, 1, 1, 2, 4, 4, 6])
DEEP = Topology([-1, 0, 1, 2, 3, 0, 5, 6, 7, 8])
ROUNDS: list[tuple[Callable[..., torch.Tensor], Topology, list[int]]] = [
    (append_tree, WIDE, [0, 2, 6, 9]),
    (append_by_level, WIDE, [0, 1, 4, 8]),
    (append_tree, DEEP, [0]),
    (append_tree, DEEP, [0, 5, 6, 7, 8, 9]),
    (append_tree, Topology([-1]), [0]),
    (append_tree, DEEP, [0, 1, 2, 3, 4]),
    (append_by_level, WIDE, [0, 3]),
]


class Renamed(torch.nn.Module):
    """A model whose forward calls its cache by another of the names that `transformers` has for it."""

    def __init__(self) -> None:
        super().__init__()
        self.of = random_model("llama", "sdpa")

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("of", "_modules") else getattr(self.of, name)

    def _run(self, cache: Any, **inputs: Any) -> Any:
        return self.of(**{str(cache_name(type(self.of))): cache}, **inputs)


class CacheNamedCache(Renamed):
    def forward(self, input_ids: torch.Tensor, position_ids: Any = None, cache: Any = None, **others: Any) -> Any:
        return self._run(cache, input_ids=input_ids, position_ids=position_ids, **others)


class CacheNamedPast(Renamed):
    def forward(self, input_ids: Any, position_ids: Any = None, past_key_values: Any = None, **others: Any) -> Any:
        return self._run(past_key_values, input_ids=input_ids, position_ids=position_ids, **others)


class NoCache(Renamed):
    def forward(self, input_ids: Any, position_ids: Any = None) -> Any:
        return self._run(None, input_ids=input_ids, position_ids=position_ids)


@pytest.mark.parametrize("kind", [CacheNamedCache, CacheNamedPast])
def test_the_cache_goes_by_the_name_that_the_model_has_for_it(kind: type[Renamed]) -> None:
    named, text = kind(), random_ids(PROMPT, seed=1)
    check_supported("x", named.config, kind)
    model = CachedModel(named, SMALL_VOCAB)
    model.prefill(text)
    torch.testing.assert_close(model.extend(text[0]), sequential(model, [*text, text[0]]), atol=1e-4, rtol=1e-4)
    assert model.length == PROMPT + 1


def test_a_model_without_a_cache_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="keeps no attention key-value cache"):
        check_supported("x", random_model("llama", "sdpa").config, NoCache)


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_tree_logits_are_the_sequential_ones_round_after_round(name: str, attention: str) -> None:
    model = CachedModel(random_model(name, attention), SMALL_VOCAB)
    text = random_ids(PROMPT, seed=1)
    torch.testing.assert_close(model.prefill(text).logits, sequential(model, text), atol=1e-4, rtol=1e-4)
    for number, (append, topology, kept) in enumerate(ROUNDS):
        tokens = random_ids(len(topology), seed=100 + number)
        expected = along_every_path(model, text, topology, tokens)
        torch.testing.assert_close(append(model, topology, tokens), expected, atol=1e-4, rtol=1e-4)
        assert expected.std() > 0.3
        model.commit(kept)
        text += [tokens[slot] for slot in kept]
        assert (model.length, model.pending) == (len(text), 0)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral-sliding", "gemma3", "opt"])
def test_settled_tokens_are_committed_and_the_others_stay_pending(name: str) -> None:
    model = CachedModel(random_model(name), SMALL_VOCAB)
    text, tokens = random_ids(PROMPT, seed=1), random_ids(5, seed=2)
    model.prefill(text)
    order = torch.arange(2)
    model.append(torch.tensor(tokens[:2]), order, tail_mask(order[:, None] >= order[None], model.dtype))
    model.settle(1)
    assert (model.length, model.pending) == (PROMPT + 1, 1)
    text.append(tokens[0])
    siblings = torch.tensor([[1, 1, 0], [1, 0, 1]]).bool()
    got = model.append(torch.tensor(tokens[2:4]), torch.tensor([1, 1]), tail_mask(siblings, model.dtype)).logits
    expected = torch.stack([sequential(model, [*text, tokens[1], last]) for last in tokens[2:4]])
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    model.commit([0, 2])
    text += [tokens[1], tokens[3]]
    got = model.append(torch.tensor(tokens[4:]), torch.tensor([0]), torch.zeros(1, 1)).logits
    torch.testing.assert_close(got[0], sequential(model, [*text, tokens[4]]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "mistral-sliding", "gemma2"])
def test_a_prompt_may_come_in_parts_and_be_forgotten(name: str) -> None:
    model = CachedModel(random_model(name), SMALL_VOCAB)
    text = random_ids(PROMPT, seed=1)
    for _ in range(2):
        model.prefill(text[:7])
        torch.testing.assert_close(model.prefill(text[7:]).logits, sequential(model, text), atol=1e-4, rtol=1e-4)
        model.reset()
        assert (model.length, model.pending) == (0, 0)


def test_logits_are_cut_to_the_common_vocabulary() -> None:
    model = CachedModel(random_model("llama"), 90)
    assert model.prefill([5, 6]).logits.shape == (90,)
    assert append_tree(model, WIDE, list(range(10))).shape == (10, 90)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_gate_and_the_self_check_pass_the_architectures_that_work(name: str, tmp_path: Path) -> None:
    kind, settings, layout = ARCHITECTURES[name]
    AutoConfig.for_model(kind, **settings).save_pretrained(tmp_path)
    files = ModelFiles(ModelSpec(str(tmp_path)), tmp_path)
    files.check_supported()
    assert attention_layout(files.config) == layout
    model = CachedModel(random_model(name), SMALL_VOCAB)
    check = self_check(model, name)
    assert check.passed
    assert check.error < 1e-4
    assert check.control > 0.1
    assert (model.length, model.pending) == (0, 0)


TINY = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "bloom": ("bloom", {"vocab_size": 32, "hidden_size": 16, "n_layer": 2, "n_head": 2}, "takes no position_ids"),
    "mamba": (
        "mamba",
        {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2},
        "layers of kind linear_attention|keeps no attention key-value cache",
    ),
    "gpt_neo": (
        "gpt_neo",
        TINY | {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
        "masks of its own",
    ),
    "llama4": (
        "llama4_text",
        TINY | {"num_key_value_heads": 1, "num_local_experts": 1, "head_dim": 8},
        "masks of its own",
    ),
    "umt5": ("umt5", {"vocab_size": 32, "d_model": 16, "num_layers": 2, "num_heads": 2}, "only t5 and mt5 models"),
    "bart": ("bart", {"vocab_size": 32, "d_model": 16}, "encoder-decoder"),
    "falcon": (
        "falcon",
        {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": True},
        "ALiBi",
    ),
    "qwen3_next": (
        "qwen3_next",
        TINY | {"layer_types": ["linear_attention", "full_attention"]},
        "layers of kind linear_attention",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_gate_refuses_a_model_and_says_why(name: str, tmp_path: Path) -> None:
    kind, settings, reason = REFUSED[name]
    AutoConfig.for_model(kind, **settings).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        ModelFiles(ModelSpec("some/model"), tmp_path).check_supported()
    assert str(caught.value).startswith(f"some/model ({kind}) cannot verify draft trees: ")


class CausalTail(CachedModel):
    def _masks(self, positions: torch.Tensor, tail: torch.Tensor) -> Any:
        rows, columns = tail.shape
        causal = torch.arange(columns)[None] <= torch.arange(columns - rows, columns)[:, None]
        return super()._masks(positions, tail_mask(causal, self.dtype))


class BlindToCache(CachedModel):
    def _masks(self, positions: torch.Tensor, tail: torch.Tensor) -> Any:
        mask = super()._masks(positions, tail)
        mask[..., :1] = torch.finfo(self.dtype).min  # type: ignore[index, call-overload]
        return mask


class PositionsInSlotOrder(CachedModel):
    def append(
        self, tokens: torch.Tensor, offsets: torch.Tensor, tail: torch.Tensor, layers: Sequence[int] = ()
    ) -> Forward:
        return super().append(tokens, self.pending + torch.arange(len(tokens)), tail, layers)


class WithoutWindow(CachedModel):
    def _masks(self, positions: torch.Tensor, tail: torch.Tensor) -> Any:
        masks = super()._masks(positions, tail)
        full = torch.nn.functional.pad(tail, (self.length, 0))[None, None]
        return dict.fromkeys(masks, full) if isinstance(masks, dict) else full


@pytest.mark.parametrize(
    ("faulty", "names"),
    [
        (CausalTail, ["llama", "gpt2", "gemma3", "opt", "mistral-sliding"]),
        (BlindToCache, ["llama", "gpt2", "opt", "gpt_neox"]),
        (PositionsInSlotOrder, ["llama", "gpt2", "gemma3", "opt", "mistral-sliding"]),
        (WithoutWindow, ["mistral-sliding", "gemma2", "gemma3", "gemma3-all-sliding", "qwen2-sliding"]),
    ],
)
def test_the_self_check_refuses_a_faulty_tree_forward(faulty: type[CachedModel], names: list[str]) -> None:
    for name in names:
        with pytest.raises(
            UnsupportedModelError, match=f"^{name}: the load-time self-check failed: tree logits differ"
        ):
            self_check(faulty(random_model(name), SMALL_VOCAB), name)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "mistral-sliding", "gpt_neox"])
@pytest.mark.parametrize("memory", ["all", "first layers"])
def test_structure_is_checked_in_float32_whatever_the_type(
    name: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specdraft.models.self_check.free_memory", lambda device: 1 << 40 if memory == "all" else 0)
    model = CachedModel(random_model(name).to(torch.bfloat16), SMALL_VOCAB)
    check = self_check(model, name)
    assert check.error < 1e-4 < check.control
    assert check.error < check.rounding < check.control
    assert model.dtype == torch.bfloat16
    text = model.model.config
    assert check.layers == (text.num_hidden_layers if memory == "all" else 2)
    with pytest.raises(UnsupportedModelError, match="self-check failed: tree logits differ"):
        self_check(CausalTail(model.model, SMALL_VOCAB), name)


def test_the_self_check_says_what_it_cannot_see() -> None:
    windowed = random_model("mistral-sliding")
    windowed.config.sliding_window = 100
    assert self_check(CachedModel(windowed, SMALL_VOCAB), "m").as_dict()["not_covered"] == [
        "texts of more than 16 tokens",
        "the sliding window of 100 tokens",
    ]


def test_a_check_that_could_not_have_failed_does_not_pass() -> None:
    """Without positions wrong ones make no difference: the milder of the wrong forwards is what the error must beat."""
    model = CachedModel(random_model("gpt2"), SMALL_VOCAB)
    model.model.transformer.wpe.weight.data.zero_()
    with pytest.raises(UnsupportedModelError, match=r"the load-time self-check failed"):
        self_check(model, "gpt2")


def test_a_window_that_no_layer_uses_needs_no_mask() -> None:
    config = transformers.Gemma3TextConfig(**GROUPED, sliding_window=WINDOW, layer_types=["full_attention"] * 3)
    assert config.sliding_window == WINDOW
    assert attention_layout(config) == AttentionLayout(None, False)
    config = transformers.Qwen2Config(**GROUPED, use_sliding_window=False)
    config.layer_types, config.sliding_window = None, WINDOW
    assert attention_layout(config) == AttentionLayout(None, False)


def test_generation_settings_that_are_not_used_are_named(tiny_pair: Pair) -> None:
    model = CachedModel(tiny_llama(), tiny_pair.target.vocab)
    for name, value in {"temperature": 0.7, "top_k": 50, "repetition_penalty": 1.2, "top_p": None}.items():
        setattr(model.model.generation_config, name, value)
    said = describe_model(model, tiny_pair.files.target, None)
    assert said["generation_settings_ignored"] == {"temperature": 0.7, "repetition_penalty": 1.2}
    assert (said["path"], said["self_check"]) == ("target", None)
