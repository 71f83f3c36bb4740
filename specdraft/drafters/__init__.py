"""Drafters, one file each: whatever proposes the tokens of a tree. A drafter is a value until a pair is loaded.

May import: acceptance, models, trees and below. To add one: a file here with a `DrafterSpec` (parameters, declared
traits), a class with the methods of `Drafter` (of one that needs no model: `TextDrafter`, and a `Reader`; of heads on
states of the target: `PositionWiseDrafter`, `PathWiseDrafter`), and a YAML of the kind's name in `configs/drafter/`.
What imports torch stands in `loaded/`: the files here are imported to know which drafters there are.
"""

from __future__ import annotations

from specdraft.config import kinds_in
from specdraft.drafters.base import Drafter, DrafterSpec, DrafterTraits, Drawing
from specdraft.drafters.draft_model import Model

__all__ = ["Drafter", "DrafterSpec", "DrafterTraits", "Drawing", "Model", "registry"]


def registry() -> dict[str, type[DrafterSpec]]:
    """`kind` -> the dataclass that declares its parameters, found in the files of this folder, and
    among the entry points `specdraft.drafters` of installed packages."""
    return kinds_in(__name__, "specdraft.drafters")
