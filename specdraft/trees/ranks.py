"""The drafter's ranks along recorded texts: what trees are replayed on, and what fitted trees are chosen by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PackedRanks(NamedTuple):
    """The ranks of several trajectories side by side.

    Attributes:
        ranks: `[P, T_max + 2]` the drafter's rank of the token at each position; -1 where there is none. A drafter
            whose proposal depends on how far below the root it is has `[P, T_max + 2, O]`: by depth, from 1 to O;
            below that it proposes nothing.
        last: `[P]` each trajectory's last position `T`.
        looped: `[P]` tokens that end a repeated 4-gram (see `metrics.looped_tokens`).
    """

    ranks: np.ndarray
    last: np.ndarray
    looped: np.ndarray

    @property
    def levels(self) -> int | None:
        """Levels below the root at which the drafter proposes anything; None: all of them."""
        return None if self.ranks.ndim == 2 else self.ranks.shape[2]

    def of(self, prompts: np.ndarray | slice) -> PackedRanks:
        """Some of the trajectories."""
        return PackedRanks(self.ranks[prompts], self.last[prompts], self.looped[prompts])


class Starts(NamedTuple):
    """Every place at which a step could start: positions 0..T-1 of each trajectory."""

    rows: np.ndarray  # [F] the trajectory
    positions: np.ndarray  # [F]


def starts(packed: PackedRanks) -> Starts:
    """All starts, trajectory by trajectory."""
    return Starts(*np.nonzero(np.arange(packed.ranks.shape[1])[None] < packed.last[:, None]))


def ahead(values: np.ndarray, depth: int) -> np.ndarray:
    """`[P, S]` what is `depth` positions further on; 0 where nothing is."""
    here = np.zeros_like(values)
    here[:, : max(values.shape[1] - depth, 0)] = values[:, depth:]
    return here


def at_depth(ranks: np.ndarray, depth: int) -> np.ndarray:
    """`[P, S]` the ranks that hold `depth` levels below the root (see `PackedRanks`)."""
    if ranks.ndim == 2:
        return ranks
    return ranks[:, :, depth - 1] if depth <= ranks.shape[2] else np.full(ranks.shape[:2], -1, dtype=ranks.dtype)
