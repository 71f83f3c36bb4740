"""How much memory models take, from their configs alone: no weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import psutil
import torch

from specdraft.errors import ModelError
from specdraft.models.files import ModelFiles
from specdraft.models.head_files import HeadFiles
from specdraft.models.placement import dtype_name, dtype_of, resolve_device
from specdraft.models.weights import weight_files

QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5}  # of a number, its scales left out
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class ModelSize:
    """One model.

    Attributes:
        parameters: all of them, tied ones once; `active_parameters`: those that multiply in a forward of one token.
        weights_bytes: of the weights as they will be held.
        state_bytes: of the keys and values that are cached for a token, at most (windows keep less).
        logits_bytes: of the logits after a token.
        exact: whether `weights_bytes` is known to the byte: nothing is quantised.
    """

    parameters: int
    active_parameters: int
    weights_bytes: int
    state_bytes: int
    logits_bytes: int
    exact: bool


def model_size(files: ModelFiles) -> ModelSize:
    """The size of a model; raises `ModelError` where its config makes none."""
    if isinstance(files, HeadFiles):
        return _head_size(files)
    model, text = files.skeleton, files.config.get_text_config()
    item = dtype_of(files).itemsize
    parameters = sum(parameter.numel() for parameter in model.parameters())
    quantised = stored_quantised(files)
    weights = _stored_bytes(files) if quantised else parameters * QUANTISED_BYTES.get(files.spec.quantize, item)
    return ModelSize(
        parameters,
        _active(model, text),
        int(weights),
        state_bytes(text, item),
        int(text.vocab_size) * FLOAT32_BYTES,
        not quantised and files.spec.quantize == "none",
    )


def _head_size(files: HeadFiles) -> ModelSize:
    numbers = sum(map(prod, files.shapes.values()))
    return ModelSize(numbers, numbers, numbers * dtype_of(files.target).itemsize, 0, 0, exact=True)


def state_bytes(text: Any, item: int) -> int:
    """Bytes of the keys and values that a model caches for a token.

    Args:
        text: its text config.
        item: bytes of a number.
    """
    heads = int(text.num_attention_heads)
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    cached = getattr(text, "num_key_value_heads", None) or heads
    layers = getattr(text, "num_decoder_layers", None) or text.num_hidden_layers
    return 2 * int(layers) * int(cached) * int(width) * item


def _active(model: Any, text: Any) -> int:
    """Parameters that multiply: no table that rows are only looked up in, and of experts those that a token goes to."""
    chosen = getattr(text, "num_experts_per_tok", None) or 1
    experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None) or chosen
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    tables -= {id(model.get_output_embeddings().weight)}
    return int(
        sum(
            parameter.numel() * (chosen / experts if ".experts." in name else 1)
            for name, parameter in model.named_parameters()
            if id(parameter) not in tables
        )
    )


def stored_quantised(files: ModelFiles) -> bool:
    """Whether a model's weights are stored quantised."""
    return getattr(files.config.get_text_config(), "quantization_config", None) is not None


def _stored_bytes(files: ModelFiles) -> int:
    """Bytes of the weight files; 0 where they are not here."""
    try:
        return sum(path.stat().st_size for path in weight_files(files.folder))
    except ModelError:
        return 0


def total_memory(device: torch.device) -> int | None:
    """Bytes of memory that a device has, free or not, with what a CPU may swap; None where it cannot be told."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().total + psutil.swap_memory().total)
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


def too_large(name: str, models: Iterable[ModelFiles]) -> str | None:
    """Why a pair's weights cannot be held by the device that they are meant for, or None.

    Models that are spread over devices, quantised or in memory already are not counted: only what is known to the byte
    refuses a pair.
    """
    held: dict[torch.device, list[tuple[ModelFiles, int]]] = {}
    for files in models:
        if files.in_memory is None and not files.spec.spread and (size := model_size(files)).exact:
            held.setdefault(resolve_device(files.spec), []).append((files, size.weights_bytes))
    for device, sizes in held.items():
        total, needed = total_memory(device), sum(size for _, size in sizes)
        if total is not None and needed > total:
            return _explained(name, device, sizes, total)
    return None


def _explained(name: str, device: torch.device, sizes: Sequence[tuple[ModelFiles, int]], total: int) -> str:
    together = " for both" if len(sizes) > 1 else ""
    each = " and ".join(f"{gib(size)} of {files.spec.path} ({dtype_name(files)})" for files, size in sizes)
    return (
        f"pair {name}: the weights take {each}, and {device} has {gib(total)} in all{together}; expected a "
        "smaller dtype, as pair.target.dtype=bfloat16, quantize=4bit or 8bit, or device=spread"
    )


def check_memory(name: str, models: Iterable[ModelFiles]) -> None:
    """Raise `ModelError` for a pair whose weights alone are more than their device holds."""
    if why := too_large(name, models):
        raise ModelError(why)


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.3g} GiB"
