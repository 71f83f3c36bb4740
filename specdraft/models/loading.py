"""Read a model's weights onto a device."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from specdraft.errors import ConfigError, ModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.files import CHOSEN, ModelFiles, reading
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
    if device.type not in ("cpu", "cuda", _accelerator()):
        raise ConfigError(
            f"device={spec.device}: this machine has no {device.type} device to compute on; expected auto, cpu, cuda, "
            "cuda:N or spread"
        )
    return device


def _accelerator() -> str | None:
    """The kind of device beside the CPU that this build of torch finds here."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else found.type


def check_loadable(files: ModelFiles) -> None:
    """What loading needs beside the files: the device, and the libraries for its placement and quantisation.

    Raises:
        ConfigError: the device is not there.
        ModelError: a library is missing.
    """
    resolve_device(files.spec)
    if files.in_memory is not None:
        return
    needs = {"accelerate": files.spec.device == "spread" or files.spec.quantize != "none"}
    needs["bitsandbytes"] = files.spec.quantize != "none"
    if missing := [name for name, needed in needs.items() if needed and find_spec(name) is None]:
        asked = f"quantize={files.spec.quantize}" if files.spec.quantize != "none" else f"device={files.spec.device}"
        raise ModelError(
            f"{files.spec.path}: {asked} needs {' and '.join(missing)} (install the extra: "
            "pip install 'specdraft[quantize]')"
        )
    stored = getattr(files.config.get_text_config(), "quantization_config", None)
    if stored is not None:
        from transformers.quantizers import AutoHfQuantizer

        with reading(files.spec.path, "the weights are quantised, and what reads them is not here"):
            if AutoHfQuantizer.supports_quant_method(stored):
                quantizer = AutoHfQuantizer.from_config(stored, pre_quantized=True)
                quantizer.validate_environment(device_map=None, weights_only=True)


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
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging as transformers_logging

    check_loadable(files)
    device = resolve_device(files.spec)
    options: dict[str, Any] = {
        "dtype": resolve_dtype(files, device),
        "config": files.config,
        "use_safetensors": True,
        "trust_remote_code": False,
        **CHOSEN,
    }
    if files.spec.quantize != "none":
        bits = {"8bit": "load_in_8bit", "4bit": "load_in_4bit"}[files.spec.quantize]
        options["quantization_config"] = BitsAndBytesConfig(**{bits: True, "bnb_4bit_compute_dtype": options["dtype"]})
    if files.spec.device == "spread" or files.spec.quantize != "none":
        options["device_map"] = "auto" if files.spec.device == "spread" else {"": device}
    transformers_logging.disable_progress_bar()
    with reading(files.spec.path, "the weights cannot be loaded"):
        try:
            model, report = AutoModelForCausalLM.from_pretrained(files.folder, output_loading_info=True, **options)
            model = model if "device_map" in options else model.to(device)
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(f"out of memory on {device}") from error
    if missing := sorted(report["missing_keys"]):  # they would be random
        raise ModelError(
            f"{files.spec.path}: the weights are incomplete: {len(missing)} tensors are missing, as {missing[0]}"
        )
    _check_numbers(files.spec.path, model)
    return _with_vocab(files, model.eval(), text_vocab)


def _with_vocab(files: ModelFiles, model: Any, text_vocab: int | None) -> CachedModel:
    """A model that gives the ids that it knows, and of these only those that texts have."""
    return CachedModel(model, min(files.known_ids, text_vocab or files.known_ids), text_vocab)


@torch.inference_mode()
def _check_numbers(name: str, model: Any) -> None:
    """Raise `ModelError` for weights that are no numbers, and for embeddings of which none is a number but 0."""
    for tensor, weight in model.named_parameters():
        readable = weight.is_floating_point() and weight.element_size() > 1 and not weight.is_meta
        if readable and not weight.isfinite().all():
            raise ModelError(f"{name}: the weights are damaged: {tensor} holds NaN or infinity")
    for layer, kind in ((model.get_input_embeddings(), "input"), (model.get_output_embeddings(), "output")):
        weight = getattr(layer, "weight", None)
        if weight is not None and not weight.is_meta and not weight.any():
            raise ModelError(f"{name}: the weights are damaged: the {kind} embeddings are all zero")
