"""Which models can verify a tree: what must be known before any weight is loaded."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdraft.errors import ModelError, UnsupportedModelError

# Models whose own code adds a local or chunked mask that a tree mask cannot replace: silently wrong.
INTERNAL_MASKS = {"gpt_neo", "llama4", "llama4_text"}
LAYER_TYPES = {"full_attention", "sliding_attention"}
MOST_MODULES = 2000  # layers, or experts: each is built, without weights, before anything else is known
MODULE_COUNT = re.compile(r"(n|num)_(\w+_)?(layers?|blocks?|experts)|\w+_layers")
OTHER_FILES = ("transformers_weights", "fusion_config")  # keys of a config.json that choose weights or code


ENCODER_DECODERS = ("t5", "mt5")  # whose decoder layers share one set of relative position biases


def encodes(config: Any) -> bool:
    """Whether a config is an encoder-decoder's."""
    return bool(getattr(config, "is_encoder_decoder", False))


def start_token(settings: Any, config: Any) -> int | None:
    """The token that an encoder-decoder's texts begin with, of its generation settings, else of its config."""
    start = getattr(settings, "decoder_start_token_id", None)
    return getattr(config, "decoder_start_token_id", None) if start is None else start


@dataclass(frozen=True)
class AttentionLayout:
    """What masks a model needs.

    Attributes:
        window: the sliding window in tokens, or None.
        mixed: the model mixes full and sliding layers and takes one mask for each kind.
    """

    window: int | None
    mixed: bool


def attention_layout(config: Any) -> AttentionLayout:
    """Read the mask kinds off a `transformers` config."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or [])
    window = getattr(text, "sliding_window", None)
    if kinds:
        window = window if "sliding_attention" in kinds else None
        return AttentionLayout(window, mixed=len(kinds) > 1)
    if getattr(text, "use_sliding_window", True) is False:
        window = None
    return AttentionLayout(window, mixed=False)


def rotary_scalings(text: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Kind and parameters of every rotary scaling of a text config: one for all layers, or one for each layer type."""
    given = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    parts = [given, *(part for part in given.values() if isinstance(part, Mapping))]
    kinds = [(str(part.get("rope_type", part.get("type", "default"))), part) for part in parts]
    return [(kind, part) for kind, part in kinds if kind != "default"]


def cache_name(model_class: type) -> str | None:
    """What a model's forward calls its cache (`cache` since transformers 5.24, `past_key_values` before), if any."""
    return next((name for name in ("cache", "past_key_values") if name in _parameters(model_class)), None)


def _parameters(model_class: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model_class.forward).parameters  # type: ignore[attr-defined]


def check_supported(name: str, config: Any, model_class: type) -> None:
    """The static gate.

    Raises:
        UnsupportedModelError: the model cannot verify a draft tree; the message says why.
    """

    def refuse(reason: str) -> None:
        raise UnsupportedModelError(f"{name} ({config.model_type}) cannot verify draft trees: {reason}")

    text = config.get_text_config()
    if encodes(config):
        if config.model_type not in ENCODER_DECODERS:
            refuse(
                "it is an encoder-decoder model whose positions follow cache slots; of those, only "
                f"{' and '.join(ENCODER_DECODERS)} models are supported (T5, T5 v1.1, flan-T5, mT5)"
            )
        return
    if config.model_type in INTERNAL_MASKS or text.model_type in INTERNAL_MASKS:
        refuse("it applies local or chunked attention masks of its own, which a tree mask cannot replace")
    other = set(getattr(text, "layer_types", None) or []) - LAYER_TYPES
    if other:
        refuse(
            f"it has layers of kind {', '.join(sorted(other))}; only full and sliding attention keep a cache "
            "that trees can use"
        )
    if getattr(text, "alibi", False):
        refuse("its ALiBi biases follow cache slots, not positions")
    window = attention_layout(config).window
    if window is not None and not (isinstance(window, int) and window > 0):
        refuse(f"its sliding window is {window!r}; expected a number of tokens")
    if (layers := getattr(text, "num_hidden_layers", None)) is not None and layers < 1:
        refuse(f"it has {layers} layers")
    if cache_name(model_class) is None:
        refuse("it keeps no attention key-value cache")
    if "position_ids" not in _parameters(model_class):
        refuse("its forward takes no position_ids, so siblings cannot share a position")


def check_raw_config(path: Path) -> None:
    """Refuse what must not reach `transformers`: a model too large to be built, files and code of its own choice.

    Raises:
        ModelError: without the folder's name; so is whatever cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"not a valid JSON file: {error}") from error
    for key, value in _items(content):
        if isinstance(value, int) and value > MOST_MODULES and MODULE_COUNT.fullmatch(key):
            raise ModelError(f"{key}={value} is out of range; expected at most {MOST_MODULES}")
        if key in OTHER_FILES and value is not None:
            raise ModelError(f"{key} is refused: only model.safetensors and its index are read, as they are")


def _items(content: Any) -> Iterator[tuple[str, Any]]:
    """Every key of nested objects, with its value."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield key, value
            yield from _items(value)
