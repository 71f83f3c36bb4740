"""A trained EAGLE-3 head as a folder that `drafter.path=` takes, in the authors' layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from specdraft.models.eagle_head import EagleHead
from specdraft.models.facts import naming
from specdraft.models.files import ModelFiles
from specdraft.models.weights import SINGLE
from specdraft.results.files import write_atomically
from specdraft.training.eagle import DraftVocabulary
from specdraft.training.settings import EagleTraining


def write_head(
    out: Path,
    head: EagleHead,
    vocabulary: DraftVocabulary,
    layers: tuple[int, ...],
    target: ModelFiles,
    asked: EagleTraining,
) -> None:
    """Write config.json and the weights; what the head shares with the target is not written again.

    Raises:
        ResultsError: the folder cannot be written.
    """
    from safetensors.torch import save

    vocab, shape = int(target.config.get_text_config().vocab_size), head.shape
    maps = vocabulary.maps(vocab)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "base_model_name_or_path": naming(target)["path"],
        "draft_vocab_size": len(maps["d2t"]) if maps else vocab,
        "eagle_aux_hidden_state_layer_ids": list(layers),
        "head_dim": shape.head_size,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.key_heads,
        "rms_norm_eps": shape.eps,
        "rope_theta": 10000.0,
        "vocab_size": vocab,
    }
    write_atomically(out / "config.json", json.dumps(config, indent=1) + "\n")
    dtype, first = getattr(torch, asked.dtype), "midlayer." if shape.layers == 1 else "layers.0."
    held = {
        name.replace("layers.0.", first): tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in head.named_parameters()
    }
    write_atomically(out / SINGLE, save(held | maps, {"format": "pt"}))
