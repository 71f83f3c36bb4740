"""A dry run of a pair whose models are out of reach says what memory they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig, PretrainedConfig, T5Config

from specdraft.models.sizes import state_bytes
from specdraft.study.known_sizes import known_sizes

PAIRS = Path(__file__).parents[2] / "configs" / "pair"
LLAMA_2_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_160M = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
T5_SIZES = {
    "small": (512, 1024, 8, 6),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 24, 16),
    "xxl": (4096, 10240, 24, 64),
}
NAMES = sorted(path.stem for path in PAIRS.glob("*.yaml") if "sizes" in OmegaConf.load(path))


def gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"


def config_of(path: str, role: str, vocabulary: int) -> PretrainedConfig:
    """The architecture that a repository's name stands for."""
    if "t5" not in path:
        return LlamaConfig(vocab_size=vocabulary, **(LLAMA_2_7B if role == "target" else LLAMA_160M))
    d_model, d_ff, layers, heads = T5_SIZES[path.rpartition("-")[2]]
    sizes = {"d_model": d_model, "d_ff": d_ff, "num_layers": layers, "num_heads": heads, "d_kv": 64}
    return T5Config(vocab_size=vocabulary, feed_forward_proj="gated-gelu", **sizes)


@pytest.mark.parametrize("name", NAMES)
def test_the_geometry_is_that_of_the_architecture(name: str) -> None:
    pair = OmegaConf.load(PAIRS / f"{name}.yaml")
    for role in ("target", "draft"):
        size = pair["sizes"][role]
        config = config_of(pair[role].path, role, size.vocabulary)
        encodes = config.is_encoder_decoder
        with torch.device("meta"):
            model = (AutoModelForSeq2SeqLM if encodes else AutoModelForCausalLM).from_config(config)
        untied = size.vocabulary * config.d_model if encodes else 0  # v1.1 has an output layer of its own
        assert model.num_parameters() + untied == size.parameters
        assert state_bytes(config, 2) == 2 * size.layers * size.cached_heads * size.head_width * 2


def test_it_adds_up() -> None:
    (line,) = known_sizes(["pair=llama2-7b-4bit-160m", "prompts.limit=1", "max_new_tokens=100"])
    weights = 6738415616 / 2, 162417408 * 2
    (longest,) = known_sizes(["pair=llama2-7b-4bit-160m", "prompts.limit=1", "max_new_tokens=101"])
    assert line.startswith(f"estimate: llama2-7b-4bit-160m: weights {gib(weights[0])} + {gib(weights[1])}, ")
    assert line != longest  # 8 MiB more in each of 16 texts' caches for every token: 2 * 32 * 32 * 128 numbers


def test_a_pair_without_sizes_is_passed_over() -> None:
    (line,) = known_sizes(["pair=gpt2-xl,llama2-7b-4bit-160m", "tree=chain"])
    assert line.startswith("estimate: llama2-7b-4bit-160m")
    assert not list(known_sizes(["pair=gpt2-xl"]))


def test_the_dry_run_says_it_and_then_what_is_missing(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, _, err = run("sweep", "pair=llama2-7b-4bit-160m", "--dry-run")
    said = [line for line in err.splitlines() if line.startswith(("estimate", "error"))]
    assert code == 2 and [line.split(":")[0] for line in said] == ["estimate", "error"], err
    assert "the hub cannot be reached" in said[1]
    code, _, err = run("sweep", "pair=llama2-7b-4bit-160m")
    assert code == 2 and "estimate" not in err
