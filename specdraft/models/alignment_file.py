"""An alignment on disk: the affine map from a draft model's last state to its target's, and what it was fitted to.

The file is safetensors: `weight [target width, draft width]`, `bias [target width]`, and metadata of which `kind`,
`target` and `draft` (digests of the weights, see `ModelFiles.weights_hash`) must be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from specdraft.errors import ConfigError
from specdraft.models.files import ModelFiles, has_weights

KIND = "alignment"
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
CONVERSION = (
    "python -c \"import torch; from safetensors.torch import save_file; t = torch.load('{path}', map_location='cpu', "
    "weights_only=True); save_file({{k: t[k].contiguous() for k in ('weight', 'bias')}}, '{new}', "
    "{{'kind': 'alignment', 'target': '{target}', 'draft': '{draft}'}})\""
)


@dataclass(frozen=True)
class AlignmentFile:
    """A file that holds an alignment of this pair.

    Attributes:
        path: where it is.
        facts: its metadata.
    """

    path: Path
    facts: Mapping[str, str]

    def tensors(self) -> dict[str, np.ndarray]:
        """`weight` and `bias`, float32."""
        with safe_open(self.path, framework="numpy") as content:
            return {name: content.get_tensor(name).astype(np.float32) for name in ("weight", "bias")}


def find_alignment(named: str, key: str, target: ModelFiles, draft: ModelFiles) -> AlignmentFile:
    """The alignment that a user names; its header is read.

    Args:
        named: the file.
        key: what names it, for messages.
        target, draft: the models that it must have been fitted to; weights that are not here yet are not compared.

    Raises:
        ConfigError: it is no such file, or it was fitted to other models.
    """
    path, where = Path(named).expanduser(), f"{key}={named}"
    if path.suffix.lower() in PICKLED:
        raise ConfigError(_how_to_convert(path, where, target, draft))
    if not path.is_file():
        made_by = "specdraft fit alignment pair=NAME --out FILE.safetensors"
        raise ConfigError(f"{where}: {'this is a folder' if path.is_dir() else 'no such file'}; expected one that "
                          f"{made_by} wrote")  # fmt: skip
    facts = _facts(path, where)
    for role, files in (("target", target), ("draft", draft)):
        if has_weights(files.folder) and facts[role] != files.weights_hash:
            raise ConfigError(
                f"{where}: it was fitted to another {role} (weights {facts[role]}); those of {files.spec.path} are "
                f"{files.weights_hash}"
            )
    return AlignmentFile(path, facts)


def _facts(path: Path, where: str) -> dict[str, str]:
    try:
        with safe_open(path, framework="numpy") as content:
            shapes = {name: list(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118
            facts = dict(content.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{where}: it is cut off or damaged, or no safetensors file ({error})") from error
    weight, bias = (shapes.get(name, []) for name in ("weight", "bias"))
    if len(weight) != 2 or bias != weight[:1]:
        raise ConfigError(f"{where}: it holds {shapes}; expected weight [target width, draft width] and bias [target "
                          "width]")  # fmt: skip
    if facts.get("kind") != KIND or not {"target", "draft"} <= facts.keys():
        raise ConfigError(
            f"{where}: its metadata has kind={facts.get('kind')!r}; expected kind='{KIND}' and the digests of the "
            "target's and the draft's weights"
        )
    return facts


def _how_to_convert(path: Path, where: str, target: ModelFiles, draft: ModelFiles) -> str:
    digests = {role: files.weights_hash for role, files in (("target", target), ("draft", draft))}
    how = CONVERSION.format(path=path, new=path.with_suffix(".safetensors"), **digests)
    return (
        f"{where}: {path.suffix} files can run code when they are loaded, and are refused; expected .safetensors, "
        f"which this makes of a file with weight and bias: {how}"
    )
