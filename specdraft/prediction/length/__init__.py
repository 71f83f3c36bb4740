"""Length policies, one file each: how many tokens the chain of a step has.

May import: the rest of prediction and below. To add one: a file here with a dataclass that derives from `LengthPolicy`,
and a YAML of the same name in `configs/length/`. An installed package brings one with an entry point
`specdraft.length`.
"""

from __future__ import annotations

from specdraft.config import kinds_in
from specdraft.prediction.length.base import LengthPolicy, Lengths, Said
from specdraft.prediction.length.constant import Constant

__all__ = ["Constant", "LengthPolicy", "Lengths", "Said", "registry"]


def registry() -> dict[str, type[LengthPolicy]]:
    """`kind` -> the dataclass that declares its parameters, found in the files of this folder, and among the entry
    points `specdraft.length` of installed packages."""
    return kinds_in(__name__, "specdraft.length")
