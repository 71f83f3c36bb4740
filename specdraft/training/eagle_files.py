"""A trained EAGLE-3 head as a folder that `drafter.path=` takes, in the authors' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specdraft.models.eagle_head import EagleHead
from specdraft.models.facts import naming
from specdraft.models.files import ModelFiles
from specdraft.training.eagle import DraftVocabulary
from specdraft.training.folder import SINGLE, write_heads
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
    first = "midlayer." if shape.layers == 1 else "layers.0."
    weights = {name.replace("layers.0.", first): tensor for name, tensor in head.named_parameters()}
    write_heads(weights | maps, asked.dtype, config, out, SINGLE)
