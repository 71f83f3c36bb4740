"""Read a model's weights onto a device."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from specdraft.errors import ModelError
from specdraft.models.cached_model import CachedModel
from specdraft.models.check_result import SelfCheck
from specdraft.models.device_map import device_map
from specdraft.models.few_tokens import lay_out, suit_few_tokens
from specdraft.models.files import CHOSEN, ModelFiles, reading
from specdraft.models.gate import encodes
from specdraft.models.placement import check_loadable, dtype_of, resolve_device
from specdraft.models.spec import ModelSpec
from specdraft.models.tree_attention import FASTEST, OWN, TRITON, no_kernel_for, with_attention


class Checked(NamedTuple):
    """A model in memory, and what its self-check said."""

    model: CachedModel
    check: SelfCheck


def load_checked(files: ModelFiles) -> Checked:
    """Load a target and check it against sequential decoding. Raises `ModelError`, as `load_model` and `self_check`."""
    from specdraft.models.self_check import self_check

    model = load_model(files)
    return Checked(model, self_check(model, files.spec.path))


def load_model(files: ModelFiles, text_vocab: int | None = None) -> CachedModel:
    """Read the weights onto the device.

    Args:
        files: which model.
        text_vocab: how many ids the texts have that it reads; left out: its own.

    Raises:
        ModelError: the weights cannot be read, a library for quantisation is missing, or memory ran out.
    """
    if files.in_memory is not None:
        return cached(files.in_memory.eval(), files.vocab(text_vocab), text_vocab)
    if files.spec.served:
        raise ModelError(
            f"pair.target.server.url={files.spec.server.url}: the model is served elsewhere, and this command runs it "
            "here; specdraft sweep replays its recorded texts"
        )
    from transformers import BitsAndBytesConfig
    from transformers.utils import logging as transformers_logging

    check_loadable(files)
    device = resolve_device(files.spec)
    options: dict[str, Any] = {
        "dtype": dtype_of(files),
        "config": files.config,
        "use_safetensors": True,
        "trust_remote_code": False,
        **CHOSEN,
    }
    if files.spec.quantize != "none":
        bits = {"8bit": "load_in_8bit", "4bit": "load_in_4bit"}[files.spec.quantize]
        options["quantization_config"] = BitsAndBytesConfig(**{bits: True, "bnb_4bit_compute_dtype": options["dtype"]})
    if (placed := _placed(files, device)) is not None:
        options["device_map"] = placed
    transformers_logging.disable_progress_bar()
    with reading(files.spec.path, "the weights cannot be loaded"):
        try:
            model, report = files.model_class.from_pretrained(files.folder, output_loading_info=True, **options)
            model = model if "device_map" in options else model.to(device)
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(f"out of memory on {device}") from error
    if missing := sorted(report["missing_keys"]):  # they would be random
        raise ModelError(
            f"{files.spec.path}: the weights are incomplete: {len(missing)} tensors are missing, as {missing[0]}"
        )
    _check_numbers(files.spec.path, model)
    if files.spec.attention == TRITON and (reason := no_kernel_for(model)):
        raise ModelError(f"{files.spec.path}: attention=triton has no effect: {reason}; expected own or grouped")
    model = with_attention(lay_out(suit_few_tokens(model.eval())), attention_of(files.spec, device))
    return cached(model, files.vocab(text_vocab), text_vocab)


def attention_of(spec: ModelSpec, device: torch.device) -> str:
    """How a model's layers attend on a device."""
    return FASTEST.get(device.type, OWN) if spec.attention == "auto" else spec.attention


def _placed(files: ModelFiles, device: torch.device) -> str | dict[str, torch.device] | None:
    """Which of its modules goes where; None: all of it is moved to one device."""
    if files.spec.cards:
        return device_map(files.spec, files.skeleton)
    if files.spec.spread:
        return "auto"
    return {"": device} if files.spec.quantize != "none" else None


def cached(model: Any, vocab: int, text_vocab: int | None = None) -> CachedModel:
    """A model in memory as its kind is run (see `LanguageModel`)."""
    if encodes(model.config):
        from specdraft.models.encoder_decoder import EncoderDecoder

        return EncoderDecoder(model, vocab, text_vocab)
    return CachedModel(model, vocab, text_vocab)


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
