"""Read a model's weights onto a device."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from specdraft.errors import ConfigError, ModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.files import ModelFiles, first_line
from specdraft.models.spec import ModelSpec


def resolve_device(spec: ModelSpec) -> torch.device:
    """The device that a spec means; raises `ConfigError` for one that is not there."""
    if spec.device in ("auto", "spread"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(spec.device)
    except RuntimeError as error:
        raise ConfigError(
            f"device={spec.device!r} is not a device; expected auto, cpu, cuda, cuda:N or spread"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={spec.device}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def resolve_dtype(files: ModelFiles, device: torch.device) -> torch.dtype:
    """The weights' type: what the spec says, else float32 on a CPU and a 16-bit type on a GPU."""
    if files.spec.dtype != "auto":
        named: torch.dtype = getattr(torch, files.spec.dtype)
        return named
    if device.type == "cpu":
        return torch.float32
    config_dtype = files.config.get_text_config().dtype
    usable = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return config_dtype if config_dtype == torch.float16 else usable


def load_model(files: ModelFiles, text_vocab: int | None = None) -> CachedModel:
    """Read the weights onto the device.

    Args:
        files: which model.
        text_vocab: how many ids the texts have that it reads; left out: its own.

    Raises:
        ModelError: the weights cannot be read, a library for quantisation is missing, or memory ran out.
    """
    if files.in_memory is not None:
        return _with_vocab(files, files.in_memory.eval(), text_vocab)
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging as transformers_logging

    device = resolve_device(files.spec)
    options: dict[str, Any] = {
        "dtype": resolve_dtype(files, device),
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if files.spec.quantize != "none":
        bits = {"8bit": "load_in_8bit", "4bit": "load_in_4bit"}[files.spec.quantize]
        options["quantization_config"] = BitsAndBytesConfig(**{bits: True, "bnb_4bit_compute_dtype": options["dtype"]})
    if files.spec.device == "spread" or files.spec.quantize != "none":
        options["device_map"] = "auto" if files.spec.device == "spread" else {"": device}
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of `transformers`, about generation settings that are not used here
            model, report = AutoModelForCausalLM.from_pretrained(files.folder, output_loading_info=True, **options)
            model = model if "device_map" in options else model.to(device)
    except ImportError as error:
        raise ModelError(
            f"{files.spec.path}: {first_line(error)} (install the extra: pip install 'specdraft[quantize]')"
        ) from error
    except torch.cuda.OutOfMemoryError as error:
        raise ModelError(f"{files.spec.path}: out of memory on {device} while loading") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{files.spec.path}: the weights cannot be loaded: {first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):  # they would be random
        raise ModelError(
            f"{files.spec.path}: the weights are incomplete: {len(missing)} tensors are missing, as {missing[0]}"
        )
    return _with_vocab(files, model.eval(), text_vocab)


def _with_vocab(files: ModelFiles, model: Any, text_vocab: int | None) -> CachedModel:
    """A model that gives the ids that it knows, and of these only those that texts have."""
    return CachedModel(model, min(files.known_ids, text_vocab or files.known_ids), text_vocab)
