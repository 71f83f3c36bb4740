"""Quantised models: what the load-time check compares, and 4 bits as far as a CPU goes (with the extra `quantize`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny_models import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from specdraft.drafters.pair import find_pair, load_pair
from specdraft.models.self_check import in_float32, self_check
from specdraft.models.sizes import model_size
from specdraft.models.spec import ModelSpec, PairSpec

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A target whose layers are as wide as 4-bit blocks are long, and can be left alone by rounding."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 1}
    LlamaForCausalLM(LlamaConfig(**WIDE, **sizes)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def pair_of(target: ModelSpec, draft: Path) -> PairSpec:
    return PairSpec("quantised", target, ModelSpec(str(draft), device="cpu"))


def test_a_quantised_model_is_checked_by_its_architecture(folder: Path) -> None:
    model = load_pair(find_pair(pair_of(ModelSpec(str(folder), device="cpu"), folder))).target
    assert in_float32(model)[0] is model
    model.model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    copied, layers = in_float32(model)
    assert copied is not model and layers == 2
    assert not hasattr(copied.model.config, "quantization_config")
    assert self_check(model, "quantised").passed


def test_four_bits_on_load_and_from_a_folder(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    on_load = load_pair(find_pair(pair_of(ModelSpec(str(folder), device="cpu", quantize="4bit"), folder))).target
    on_load.model.save_pretrained(tmp_path / "4bit")
    byte_tokenizer().save_pretrained(tmp_path / "4bit")
    stored = find_pair(pair_of(ModelSpec(str(tmp_path / "4bit"), device="cpu"), folder))
    size = model_size(stored.target)
    assert size.weights_bytes == sum(path.stat().st_size for path in (tmp_path / "4bit").glob("*.safetensors"))
    assert not size.exact
    for prompt in ([5, 6, 7], [9, 8]):
        logits = [model.after(prompt) for model in (on_load, load_pair(stored).target)]
        assert torch.allclose(*logits, atol=1e-5)
