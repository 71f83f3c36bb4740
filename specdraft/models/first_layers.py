"""A model's first layers, with its own final norm and output layer, as a model."""

from __future__ import annotations

import copy
from typing import Any

import torch

from specdraft.errors import ModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.few_tokens import suit_few_tokens
from specdraft.models.gate import encodes


def first_layers_config(config: Any, layers: int) -> Any:
    """A copy of a model's config that has its first layers only."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    if kinds := getattr(text, "layer_types", None):
        text.layer_types = list(kinds)[:layers]
    text.num_hidden_layers = layers
    if encodes(config):
        config.num_decoder_layers = min(layers, config.num_decoder_layers)
    return config


@torch.inference_mode()
def share_first_layers(model: CachedModel, layers: int, name: str) -> CachedModel:
    """A model of another model's first layers: its tensors are the other one's, its cache is its own.

    Args:
        model: whose layers.
        layers: how many.
        name: what the user calls the model.

    Raises:
        ModelError: its tensors are not those of a model with fewer layers, or they lie on several devices.
    """
    whole = model.model
    if len({tensor.device for tensor in (*whole.parameters(), *whole.buffers())}) > 1:
        raise ModelError(f"{name}: its weights lie on several devices; its first layers alone are not run over several")
    with torch.device("meta"):
        short = type(whole)(first_layers_config(whole.config, layers))
    missing = short.load_state_dict(whole.state_dict(), strict=False, assign=True).missing_keys
    tensors = dict(whole.named_buffers())  # those that no state dict has, as rotary frequencies
    for tensor, _ in list(short.named_buffers()):
        if tensor in tensors:
            module, _, attribute = tensor.rpartition(".")
            setattr(short.get_submodule(module), attribute, tensors[tensor])
    short.tie_weights()
    lacking = [tensor for tensor, value in (*short.named_parameters(), *short.named_buffers()) if value.is_meta]
    if missing or lacking:
        raise ModelError(f"{name}: its first {layers} layers alone are no such model: {(missing or lacking)[0]} is new")
    short.generation_config = whole.generation_config
    few = suit_few_tokens(short.eval().requires_grad_(False))
    return type(model)(few, model.vocab, model.width)
