"""What a model's weight files hold, from their headers alone: no tensor is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specdraft.errors import ModelError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADS = "medusa_lm_head.safetensors"  # what heads are called beside a model's name for them
OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf")
MOST_HEADER_BYTES = 100_000_000  # as safetensors has it
LAYER = re.compile(r"\.\d+\.")

Shapes = Mapping[str, tuple[int, ...]]  # tensor -> its shape


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model's weights, each of them in its folder.

    Raises:
        ModelError: there are none, a shard is missing, or the index names files elsewhere; without the folder's name.
    """
    if single := [name for name in (SINGLE, HEADS) if (folder / name).exists()]:
        names = single[:1]
    elif (folder / INDEX).is_file():
        names = _shards(folder / INDEX)
    else:
        raise ModelError(_no_weights(folder))
    for name in names:
        if not (folder / name).is_file():
            problem = "is a folder; expected a file" if (folder / name).is_dir() else "is missing"
            raise ModelError(f"{name} {problem}{'' if single else f' ({INDEX} names it)'}")
    return [folder / name for name in names]


def _shards(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{INDEX} is not an index of tensors and their files") from error
    for name in names:
        if not isinstance(name, str) or "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{INDEX} names {name!r}; expected the names of .safetensors files in the model's own folder"
            )
    if not names:
        raise ModelError(f"{INDEX} names no file")
    return names


def _no_weights(folder: Path) -> str:
    others = sorted(path.name for pattern in OTHER_FORMATS for path in folder.glob(pattern))
    if strange := sorted(path.name for path in folder.glob("*.safetensors")):
        return f"there is no {SINGLE} and no {INDEX}, only {strange[0]}"
    if others:
        return (
            f"there are no .safetensors weights, only {others[0]} (other formats can run code when loaded, or are "
            "made for other programs, and are refused)"
        )
    return "there are no weights; expected model.safetensors, or several files and their index"


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model's weight files, with its shape.

    Raises:
        ModelError: see `weight_files`; a file is cut off or is not safetensors; without the folder's name.
    """
    from safetensors import SafetensorError, safe_open

    shapes = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="numpy") as weights:  # compares its header with the size of the file
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    shapes[name] = tuple(weights.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"the weights cannot be loaded: {path.name} is cut off or damaged, or is no safetensors file ({error})"
            ) from error
    return shapes


def header(path: Path) -> bytes:
    """The header of a safetensors file as it stands there, with its length in front; less of a file that is cut off."""
    with path.open("rb") as handle:
        length = handle.read(8)
        return length + handle.read(min(int.from_bytes(length, "little"), MOST_HEADER_BYTES))


def check_complete(shapes: Shapes, model: Any) -> None:
    """Compare weight files with a model that was built without weights.

    Names may differ by the prefix of the inner model. A checkpoint with names that this model does not have may be
    converted on loading: of it only those tensors are missed that other layers have.

    Args:
        shapes: tensor -> its shape.
        model: a `transformers` model on the meta device.

    Raises:
        ModelError: a tensor is missing or has another size; without the folder's name.
    """
    prefix = f"{model.base_model_prefix}."
    aliases: dict[int, list[str]] = {}
    sizes = {}
    model.tie_weights()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
        sizes[name] = parameter.numel()
    stored = {spelling: name for name in sizes for spelling in (name, prefix + name, name.removeprefix(prefix))}
    there = {stored[name] for name in shapes if name in stored}
    layers = {LAYER.sub(".*.", name) for name in there if LAYER.search(name)}
    native = all(name in stored for name in shapes)
    missing = [
        names[0]
        for names in aliases.values()
        if not there.intersection(names) and (native or LAYER.sub(".*.", names[0]) in layers)
    ]
    if missing:
        raise ModelError(f"the weights are incomplete: {len(missing)} tensors are missing, as {missing[0]}")
    for name, shape in shapes.items():
        if name in stored and math.prod(shape) != sizes[stored[name]]:
            raise ModelError(
                f"the weights cannot be loaded: {name} has {' x '.join(map(str, shape))} numbers, and "
                f"{sizes[stored[name]]} by config.json"
            )
