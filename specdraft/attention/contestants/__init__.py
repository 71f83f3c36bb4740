"""Ways to compute tree attention, one file each. To add one: a file with a `Contestant`, and a line below."""

from __future__ import annotations

from specdraft.attention.contestants.base import Attend, Contestant
from specdraft.attention.contestants.decode import DECODE
from specdraft.attention.contestants.dense import DENSE
from specdraft.attention.contestants.expanded import EXPANDED
from specdraft.attention.contestants.flashinfer import FLASHINFER
from specdraft.attention.contestants.flex import FLEX
from specdraft.attention.contestants.grouped import GROUPED
from specdraft.attention.contestants.merged import MERGED
from specdraft.attention.contestants.sequential import SEQUENTIAL
from specdraft.attention.contestants.triton import TRITON

__all__ = ["DECODE", "Attend", "Contestant", "registry"]


def registry() -> dict[str, Contestant]:
    """Name -> contestant, in the order of tables."""
    every = (SEQUENTIAL, EXPANDED, DENSE, GROUPED, FLEX, MERGED, TRITON, FLASHINFER)
    return {contestant.name: contestant for contestant in every}
