"""Medusa heads that others trained and saved as a pickle, as a folder of safetensors."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from specdraft.errors import ConfigError
from specdraft.models.medusa_layout import AUTHORS, MedusaNames, check_shapes, names_of
from specdraft.models.weights import HEADS
from specdraft.results.files import cannot_write

UNREADABLE = (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, ImportError)
FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")  # what a pickle imports, as torch says it


@dataclass(frozen=True)
class ImportedHeads:
    """What was written.

    Attributes:
        folder: where.
        heads: how many; `blocks` of each.
        width: numbers of the target's state.
        rows: ids of their own output layers; None: they use the target's.
        dtype: of the tensors, as they were.
    """

    folder: Path
    heads: int
    blocks: int
    width: int
    rows: int | None
    dtype: str

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self) | {"folder": str(self.folder)}


def import_heads(file: Path, out: Path) -> ImportedHeads:
    """Write the heads of a pickle in the authors' layout as `drafter=medusa` reads them.

    Nothing of the file is run: `torch.load(weights_only=True)` builds tensors, and refuses whatever else is asked for.

    Raises:
        ConfigError: the file cannot be read in this way, or holds no whole Medusa heads; or `out` is not empty.
        ResultsError: the folder cannot be written.
    """
    if (out.is_dir() and any(out.iterdir())) or (out.exists() and not out.is_dir()):
        raise ConfigError(f"--out {out}: is there already; expected a folder that is empty or not there yet")
    tensors = _read(file)
    names = names_of({name: tuple(tensor.shape) for name, tensor in tensors.items()}, str(file))
    made = _described(file, out, tensors, names)
    _write(out, tensors, made)
    return made


def _read(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickle, behind no prefix. Raises `ConfigError`."""
    if not file.is_file():
        raise ConfigError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; expected a pickle of heads")
    if file.suffix == ".safetensors":
        raise ConfigError(f"{file}: is no pickle: drafter.path=DIR takes a folder of safetensors as it is")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old forms of storage
            held = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except UNREADABLE as error:
        asks = FORBIDDEN.search(str(error))
        why = "it is damaged, or no pickle of tensors alone"
        why = f"it asks for {asks[1]}, which no tensor needs" if asks else why
        raise ConfigError(f"{file}: refused by torch.load(weights_only=True), nothing of it was run: {why}") from error
    if not (isinstance(held, Mapping) and held and all(map(_is_named_tensor, held.items()))):
        raise ConfigError(f"{file}: expected a state dict, which is names and tensors of numbers that are finite")
    return {name.removeprefix(AUTHORS.prefix): tensor for name, tensor in held.items()}


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    name, tensor = item
    dense = isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
    return dense and tensor.is_floating_point() and bool(tensor.isfinite().all())


def _described(file: Path, out: Path, tensors: Mapping[str, torch.Tensor], names: MedusaNames) -> ImportedHeads:
    """What heads they are. Raises `ConfigError` where they are not all of one target."""
    if names.layout != AUTHORS.name:
        raise ConfigError(f"{file}: is in {names.layout} layout; expected the authors' (0.0.linear.weight, ...)")
    first = names.heads[0]
    width = tensors[first.blocks[0].weight].shape[-1]
    rows = tensors[first.output].shape[0] if first.output else None
    check_shapes(names, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, width, rows or 0, str(file))
    dtype = str(tensors[first.blocks[0].weight].dtype).removeprefix("torch.")
    return ImportedHeads(out, len(names.heads), len(first.blocks), width, rows, dtype)


def _write(out: Path, tensors: Mapping[str, torch.Tensor], made: ImportedHeads) -> None:
    from safetensors.torch import save_file

    config = {"medusa_num_heads": made.heads, "medusa_num_layers": made.blocks, "hidden_size": made.width}
    config |= {"vocab_size": made.rows} if made.rows else {}
    with _whole_folder(out) as folder:
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, folder / HEADS)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it at the end, and is gone if anything fails."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.replace(out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
