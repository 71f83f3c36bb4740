"""Tiny random models and a byte-level tokenizer, made in code and saved: nothing is downloaded."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from specdraft.draft_tree import Topology
from specdraft.models.pair import Pair, load_pair
from specdraft.models.spec import ModelSpec, PairSpec

torch.set_num_threads(1)  # a second thread only makes models of this size wait for it
settings.register_profile("specdraft", deadline=None)
settings.load_profile("specdraft")
transformers_logging.disable_progress_bar()

BOS, EOS = 0, 1
VOCAB = 258  # <s>, </s> and the 256 bytes


class PairFolders(NamedTuple):
    target: Path
    draft: Path

    def spec(self, name: str = "tiny") -> PairSpec:
        return PairSpec(name, ModelSpec(str(self.target)), ModelSpec(str(self.draft)))


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
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False)
    fast.chat_template = chat_template
    return fast


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


def tiny_pair_models() -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """A target, and a draft that has all its weights but the last, quieter layer."""
    target, draft = tiny_llama(), tiny_llama(num_hidden_layers=2)
    with torch.no_grad():
        target.model.layers[-1].self_attn.o_proj.weight *= 0.3
        target.model.layers[-1].mlp.down_proj.weight *= 0.3
    shared = {name: weight for name, weight in target.state_dict().items() if name in draft.state_dict()}
    draft.load_state_dict(shared)
    return target, draft


def save_model(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """`folder`, with the model's config and safetensors and a tokenizer in it."""
    model.save_pretrained(folder)
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    return folder


@st.composite
def topologies(draw: st.DrawFn, max_nodes: int = 12) -> Topology:
    """Random trees in any listing order that keeps parents first, with gaps in the child ranks."""
    parents, ranks = [-1], [0]
    for node in range(1, draw(st.integers(0, max_nodes)) + 1):
        parent = draw(st.integers(0, node - 1))
        taken = {ranks[i] for i in range(1, node) if parents[i] == parent}
        parents.append(parent)
        ranks.append(draw(st.integers(0, max_nodes).filter(lambda rank, taken=taken: rank not in taken)))
    return Topology(parents, ranks)


@pytest.fixture(scope="session")
def tiny_pair_folders(tmp_path_factory: pytest.TempPathFactory) -> PairFolders:
    """A target and a draft model as saved folders. Do not write into them."""
    folder = tmp_path_factory.mktemp("tiny-pair")
    target, draft = tiny_pair_models()
    return PairFolders(save_model(folder / "target", target), save_model(folder / "draft", draft))


@pytest.fixture(scope="session")
def tiny_pair(tiny_pair_folders: PairFolders) -> Pair:
    return load_pair(tiny_pair_folders.spec())
