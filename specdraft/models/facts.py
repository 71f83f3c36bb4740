"""What is known of a loaded model: what its numbers depend on, and what a manifest says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specdraft.models.files import ModelFiles
from specdraft.models.language_model import LanguageModel
from specdraft.models.self_check import SelfCheck

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
    """What a trace depends on of a model: its weights, how they are held, the kind of device."""
    held = {
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantize": files.spec.quantize,
        "device": model.device.type,
    }
    return {"weights": files.weights_hash, "vocab": model.vocab} | held


def describe_model(model: LanguageModel, files: ModelFiles, check: SelfCheck | None) -> dict[str, Any]:
    """Path, revision, weights and self-check."""
    settings = getattr(model.model, "generation_config", None)
    given = {name: getattr(settings, name, None) for name in IGNORED_SETTINGS}
    return {
        "path": files.spec.path if not Path(files.spec.path).is_absolute() else Path(files.spec.path).name,
        "revision": files.revision,
        "weights": files.weights_hash,
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantize": files.spec.quantize,
        "device": str(model.device),
        "self_check": None if check is None else check.as_dict(),
        "generation_settings_ignored": {
            name: value for name, value in given.items() if value not in (None, IGNORED_SETTINGS[name])
        },
    }
