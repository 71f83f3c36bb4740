"""The folder that training writes: begun, gone on with, or started over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from specdraft.errors import ConfigError, ModelError, PromptError, ResultsError
from specdraft.results.files import check_folder_writable, write_atomically
from specdraft.results.locks import LOCK, locked

WORK, CARD, LOG = ".training", "README.md", "training_log.csv"
HEADS, SINGLE, WHOLE = "medusa_lm_head.safetensors", "model.safetensors", "target"
WRITTEN = (CARD, LOG, HEADS, "config.json", "generation_config.json", "model*.safetensors*", "tokenizer*", "*.jinja",
           "special_tokens_map.json")  # fmt: skip


@contextmanager
def claimed(out: Path, fresh: bool) -> Iterator[None]:
    """Make the folder, or go on with one that a killed run left; of what cannot be meant nothing stays.

    Raises:
        ResultsError: it holds something else, or another training writes there.
    """
    new, begun = not out.exists(), (out / WORK).exists()
    try:
        with locked(out, "training"):
            _claim(out, fresh)
            yield
    except (ConfigError, PromptError, ModelError):
        if not begun:
            shutil.rmtree(out / WORK)
        if new:
            out.rmdir()
        raise


def _claim(out: Path, fresh: bool) -> None:
    there = {path.name for path in out.iterdir()} - {LOCK}
    if there and not there & {WORK, LOG}:
        raise ResultsError(f"--out {out}: holds other files; choose another folder")
    if LOG in there and not fresh:
        raise ResultsError(f"--out {out}: is trained already; choose another folder, or start over with --fresh")
    if fresh and there:
        for folder in (WORK, WHOLE):
            shutil.rmtree(out / folder, ignore_errors=True)
        for path in (path for pattern in WRITTEN for path in out.glob(pattern)):
            path.unlink()
    check_folder_writable(out / WORK)


def write_model(model: Any, dtype: str, generation_config: Any, temporary: Path, folder: Path) -> None:
    """A model as a folder that a pair or a drafter may name; the weights come last."""
    model.to(getattr(torch, dtype)).eval()
    model.generation_config = generation_config
    model.save_pretrained(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(temporary.iterdir(), key=lambda path: path.suffix == ".safetensors"):
        path.replace(folder / path.name)


def write_heads(
    parameters: Mapping[str, torch.Tensor], dtype: str, config: Mapping[str, Any], folder: Path, name: str
) -> None:
    """Heads as a folder that a drafter may name, numbers in a type, ids as they are; the weights come last."""
    from safetensors.torch import save

    write_atomically(folder / "config.json", json.dumps(config, indent=1) + "\n")
    held = {
        key: tensor.detach().to("cpu", getattr(torch, dtype) if tensor.is_floating_point() else None).contiguous()
        for key, tensor in parameters.items()
    }
    write_atomically(folder / name, save(held, {"format": "pt"}))
