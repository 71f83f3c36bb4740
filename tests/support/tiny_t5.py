"""Encoder-decoders of the T5 family, small enough to be made in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from support.tiny_models import PairFolders

PAD, EOS = 0, 1
VOCAB = 258  # <pad>, </s> and the 256 bytes
SIZES = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": PAD,
}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", {}),
    "t5-v1.1": ("t5", GATED | {"num_decoder_layers": 3}),
    "mt5": ("mt5", {"tie_word_embeddings": False}),
}


def ending_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, `</s>` behind each text, as T5's."""
    vocab = {"<pad>": PAD, "</s>": EOS}
    for token in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[token] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


def tiny_t5(name: str = "t5", seed: int = 0, **changes: Any) -> Any:
    """A random model whose text does not repeat one token, and whose position biases matter."""
    kind, settings = ARCHITECTURES[name]
    torch.manual_seed(seed)
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **SIZES | settings | changes)).eval()
    for parameter, weight in model.named_parameters():
        if "relative_attention_bias" in parameter:
            weight.data.normal_(0.0, 1.5)
    output = torch.empty_like(model.lm_head.weight).normal_(
        0.0, 0.5 if getattr(model.config, "scale_decoder_outputs", False) else 0.1
    )
    model.lm_head.weight = torch.nn.Parameter(output)  # tied ones repeat their last token for ever
    return model


def perturbed(model: Any, seed: int = 1, scale: float = 0.02) -> Any:
    """A draft model that agrees now and then: the same weights with noise."""
    import copy

    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    for weight in other.parameters():
        weight.data += scale * weight.std() * torch.randn_like(weight)
    return other


def save_t5_pair(folder: Path, name: str = "t5", scale: float = 0.1) -> PairFolders:
    """A target and a draft model as saved folders."""
    target = tiny_t5(name)
    folders = PairFolders(folder / "target", folder / "draft")
    for model, where in zip((target, perturbed(target, scale=scale)), folders, strict=True):
        model.save_pretrained(where)
        ending_tokenizer().save_pretrained(where)
    return folders
