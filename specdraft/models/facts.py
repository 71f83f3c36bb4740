"""What is known of a model: what its numbers depend on, and what a manifest says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdraft.models.files import ModelFiles
from specdraft.models.placement import device_type, dtype_name

if TYPE_CHECKING:
    from specdraft.models.check_result import SelfCheck
    from specdraft.models.language_model import LanguageModel
    from specdraft.models.server.served_files import ServedFiles

# settings of a checkpoint's generation config that are not used here -> what they are when nothing was set
IGNORED_SETTINGS = {
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_new_tokens": None,
    "suppress_tokens": None,
}


def model_facts(model: LanguageModel, files: ModelFiles) -> dict[str, Any]:
    """What a trace depends on of a model that is loaded: its weights, how they are held, the kind of device."""
    return _facts(files, model.vocab, str(model.dtype).removeprefix("torch."), model.device.type)


def facts_of_files(files: ModelFiles, text_vocab: int | None = None) -> dict[str, Any]:
    """`model_facts` of the model that these files will be once they are loaded (see `load_model`)."""
    return _facts(files, files.vocab(text_vocab), dtype_name(files), device_type(files.spec))


def _facts(files: ModelFiles, vocab: int, dtype: str, device: str) -> dict[str, Any]:
    held = {"dtype": dtype, "quantize": files.spec.quantize, "device": device}
    if files.spec.attention != "auto":
        held["attention"] = files.spec.attention
    return {"weights": files.weights_hash, "vocab": vocab} | held


def describe_served(files: ServedFiles) -> dict[str, Any]:
    """As `describe_model`, of a model that is served elsewhere: what the server says of it."""
    served = {"api": files.spec.server.api, **files.identity.as_dict()}
    return {**naming(files), "weights": files.weights_hash, "served": served, "self_check": None}


def naming(files: ModelFiles) -> dict[str, Any]:
    """How a manifest calls a model: of an absolute path the last part, and the revision."""
    path = Path(files.spec.path)
    return {"path": path.name if path.is_absolute() else files.spec.path, "revision": files.revision}


def describe_model(model: LanguageModel, files: ModelFiles, check: SelfCheck | None) -> dict[str, Any]:
    """Path, revision, weights and self-check."""
    settings = getattr(model.model, "generation_config", None)
    given = {name: getattr(settings, name, None) for name in IGNORED_SETTINGS}
    return {
        **naming(files),
        "weights": files.weights_hash,
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantize": files.spec.quantize,
        "attention": getattr(model.model.config, "_attn_implementation", None),
        "device": str(model.device),
        "self_check": None if check is None else check.as_dict(),
        "generation_settings_ignored": {
            name: value for name, value in given.items() if value not in (None, IGNORED_SETTINGS[name])
        },
    }
