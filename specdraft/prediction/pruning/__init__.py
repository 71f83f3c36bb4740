"""Pruning policies, one file each: which nodes of a drafted tree are sent to the target.

May import: the rest of prediction and below. To add one: a file here with a dataclass that derives from
`ScoredPolicy`, and a YAML of the same name in `configs/pruning/`. An installed package brings one with an entry point
`specdraft.pruning`.
"""

from __future__ import annotations

from specdraft.config import kinds_in
from specdraft.prediction.pruning.base import Drafted, PruningPolicy, ScoredPolicy, StepCosts
from specdraft.prediction.pruning.none import NoPruning

__all__ = ["Drafted", "NoPruning", "PruningPolicy", "ScoredPolicy", "StepCosts", "registry"]


def registry() -> dict[str, type[PruningPolicy]]:
    """`kind` -> the dataclass that declares its parameters, found in the files of this folder, and among the entry
    points `specdraft.pruning` of installed packages."""
    return kinds_in(__name__, "specdraft.pruning")
