"""Drafters, one file each: whatever proposes the tokens of a tree. A drafter is a value until a pair is loaded."""

from __future__ import annotations

from specdraft.config import kinds_in
from specdraft.drafters.base import Drafter, DrafterSpec, DrafterTraits, Drawing
from specdraft.drafters.model import Model, ModelDrafter

__all__ = ["Drafter", "DrafterSpec", "DrafterTraits", "Drawing", "Model", "ModelDrafter", "registry"]


def registry() -> dict[str, type[DrafterSpec]]:
    """`kind` -> the dataclass that declares its parameters, found in the files of this folder."""
    return kinds_in(__name__)
