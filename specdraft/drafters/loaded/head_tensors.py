"""The tensors of heads, read from their folder."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from safetensors import safe_open

from specdraft.models.cached_model import CachedModel
from specdraft.models.facts import naming
from specdraft.models.files import reading
from specdraft.models.head_files import HeadFiles
from specdraft.models.weights import weight_files


def head_tensors(files: HeadFiles, wanted: Collection[str], target: CachedModel) -> dict[str, torch.Tensor]:
    """These tensors, where the target is and in its type. Raises `ModelError` where they cannot be read."""
    tensors: dict[str, torch.Tensor] = {}
    with reading(files.spec.path, "the heads cannot be read"):
        for path in weight_files(files.folder):
            with safe_open(path, framework="pt") as stored:
                tensors |= {name: stored.get_tensor(name) for name in stored.keys() if name in wanted}  # noqa: SIM118
    return {
        name: tensor.to(target.device, target.dtype if tensor.is_floating_point() else torch.long)
        for name, tensor in tensors.items()
    }


def described(files: HeadFiles, tensors: dict[str, torch.Tensor], target: CachedModel) -> dict[str, Any]:
    """What every manifest says of heads."""
    return naming(files) | {
        "weights": files.weights_hash,
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "dtype": str(target.dtype).removeprefix("torch."),
        "device": str(target.device),
    }
