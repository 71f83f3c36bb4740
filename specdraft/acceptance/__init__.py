"""Acceptance rules, one file each: which draft nodes the target keeps, and the token after them.

May import: models, trees and below. To add one: a file here with a dataclass that derives from `AcceptanceRule` (or
`Judging`), and a YAML of the same name in `configs/acceptance/`. A rule that can be replayed says itself what must be
recorded for it.
"""

from __future__ import annotations

from specdraft.acceptance.base import AcceptanceRule
from specdraft.acceptance.block import Block
from specdraft.acceptance.greedy import Greedy
from specdraft.acceptance.kseq import KSeq
from specdraft.acceptance.membership import Membership
from specdraft.acceptance.no_replacement import NoReplacement
from specdraft.acceptance.recursive import Recursive
from specdraft.acceptance.rejection import Rejection
from specdraft.acceptance.topk import TopK
from specdraft.acceptance.traversal import Traversal
from specdraft.acceptance.typical import Typical
from specdraft.config import kinds_in

__all__ = [
    "AcceptanceRule",
    "Block",
    "Greedy",
    "KSeq",
    "Membership",
    "NoReplacement",
    "Recursive",
    "Rejection",
    "TopK",
    "Traversal",
    "Typical",
    "registry",
]


def registry() -> dict[str, type[AcceptanceRule]]:
    """`kind` -> the dataclass that declares its parameters, found in the files of this folder, and
    among the entry points `specdraft.rules` of installed packages."""
    return kinds_in(__name__, "specdraft.rules")
