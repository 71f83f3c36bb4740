"""Tokenizers and models small enough to be made in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from specdraft.models.gate import AttentionLayout
from specdraft.models.spec import ModelSpec, PairSpec
from specdraft.models.window_model import WindowConfig, WindowModel

BOS, EOS = 0, 1
VOCAB = 258  # <s>, </s> and the 256 bytes
SMALL_VOCAB, WINDOW = 96, 4
SIZES = {
    "vocab_size": SMALL_VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
SLIDING = {"sliding_window": WINDOW, "use_sliding_window": True}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

# random models whose embeddings are tied repeat their last token for ever
MIXED_WINDOWS = GROUPED | {"sliding_window": WINDOW, "layer_types": MIXED, "tie_word_embeddings": False}


GPT2 = {
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 128,
    "vocab_size": SMALL_VOCAB,
    "initializer_range": 0.3,
}


GPT_OSS = GROUPED | {
    "sliding_window": WINDOW,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}


ARCHITECTURES: dict[str, tuple[str, dict[str, Any], AttentionLayout]] = {
    "llama": ("llama", GROUPED, AttentionLayout(None, False)),
    "gpt2": ("gpt2", GPT2, AttentionLayout(None, False)),
    "qwen2": ("qwen2", GROUPED, AttentionLayout(None, False)),
    "qwen2-sliding": ("qwen2", GROUPED | SLIDING | {"max_window_layers": 1}, AttentionLayout(WINDOW, True)),
    "qwen3": ("qwen3", GROUPED, AttentionLayout(None, False)),
    "mistral": ("mistral", GROUPED | {"sliding_window": None}, AttentionLayout(None, False)),
    "mistral-sliding": ("mistral", GROUPED | {"sliding_window": WINDOW}, AttentionLayout(WINDOW, False)),
    "gemma2": ("gemma2", MIXED_WINDOWS, AttentionLayout(WINDOW, True)),
    "gemma3": ("gemma3_text", MIXED_WINDOWS, AttentionLayout(WINDOW, True)),
    "gemma3-all-sliding": (
        "gemma3_text",
        GROUPED | {"sliding_window": WINDOW, "layer_types": ["sliding_attention"] * 3},
        AttentionLayout(WINDOW, False),
    ),
    "gpt_neox": ("gpt_neox", SIZES, AttentionLayout(None, False)),
    "gpt_oss": ("gpt_oss", GPT_OSS, AttentionLayout(WINDOW, True)),
    "opt": ("opt", SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.3}, AttentionLayout(None, False)),
}


class PairFolders(NamedTuple):
    target: Path
    draft: Path

    def spec(self, name: str = "tiny") -> PairSpec:
        return PairSpec(name, *(ModelSpec(str(folder), device="cpu") for folder in self))


def byte_tokenizer(*, chat_template: str | None = None, extra_tokens: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """One token per byte, `<s>` in front of each text."""
    vocab = {"<s>": BOS, "</s>": EOS}
    for token in (*sorted(pre_tokenizers.ByteLevel.alphabet()), *extra_tokens):
        vocab[token] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    tokenizer.add_special_tokens(["<s>", "</s>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    fast.chat_template = chat_template
    return fast


def window_model(folder: Path, vocab: int = VOCAB) -> Path:
    """A random model of the last few tokens, saved."""
    torch.manual_seed(4)
    model = WindowModel(WindowConfig(vocab, 3, 16, 32))
    model.outer.weight.data *= 4
    model.save_pretrained(folder)
    return folder


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A random Llama whose logits are not flat."""
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": None,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


def random_model(name: str, attention: str | None = None) -> Any:
    """One of `ARCHITECTURES` with random weights; windows are smaller than any prompt."""
    kind, settings, _ = ARCHITECTURES[name]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **settings), attn_implementation=attention
    ).eval()


def tiny_pair_models(layers: int = 3) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """A target, and a draft that has all its weights but the last, quieter layer."""
    target, draft = (tiny_llama(num_hidden_layers=count) for count in (layers, layers - 1))
    with torch.no_grad():
        target.model.layers[-1].self_attn.o_proj.weight *= 0.3
        target.model.layers[-1].mlp.down_proj.weight *= 0.3
    shared = {name: weight for name, weight in target.state_dict().items() if name in draft.state_dict()}
    draft.load_state_dict(shared)
    return target, draft


def save_pair(folder: Path, layers: int = 3) -> PairFolders:
    """The tiny pair in a folder."""
    target, draft = tiny_pair_models(layers)
    return PairFolders(save_model(folder / "target", target), save_model(folder / "draft", draft))


def save_model(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """`folder`, with the model's config and safetensors and a tokenizer in it."""
    model.save_pretrained(folder)
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    return folder


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
