"""What a replayed run would take, from what its pieces cost.

An estimate of time from counts: prefills + steps x (draft levels + verification + the rest of a step).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import nan
from typing import Any

import numpy as np

from specdraft.prediction.pruning import StepCosts
from specdraft.trees.topology import Topology


@dataclass(frozen=True)
class Circumstances:
    """How costs were measured.

    Attributes:
        date: when, UTC.
        load: processes that wanted a core, mean of the minute before.
        seconds: that measuring took.
        quartiles: quantity -> the lower and the upper quartile of the timings of each of its values.
    """

    date: str
    load: float
    seconds: float
    quartiles: dict[str, list[list[float]]]


@dataclass(frozen=True)
class CostCurve:
    """Seconds on one machine.

    Attributes:
        sizes: numbers of tokens that were measured, ascending.
        draft_level_s: drafting one level whose parents are so many nodes.
        verify_s: the target's forward over so many tokens (root included).
        plain_s: one step of plain decoding.
        other_s: the rest of a step: acceptance, cache upkeep.
        select_s: what one level of a dynamic tree takes on top: choosing its nodes, masks made anew in each step.
        prefill_s: both models on a prompt of `kept.PREFIX` tokens; `target_prefill_s`: the target alone.
        measured: how; None of costs that are made up.
    """

    sizes: list[int]
    draft_level_s: list[float]
    verify_s: list[float]
    plain_s: float
    other_s: float
    select_s: float
    prefill_s: float
    target_prefill_s: float
    threads: int
    device: str
    measured: Circumstances | None = field(default=None, compare=False)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> CostCurve:
        """Out of what `as_dict` gave. Raises `TypeError` where it is something else."""
        measured = values.get("measured")
        return cls(**{**values, "measured": Circumstances(**measured) if measured else None})

    def step_s(self, topology: Topology) -> float:
        """Seconds of one verification step with this tree."""
        parents = topology.parents_by_level
        drafting = self._at(parents, self.draft_level_s).sum()
        return float(drafting + self._at([len(topology)], self.verify_s)[0] + self.other_s)

    def dynamic_steps_s(self, fed: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """`[V]` seconds of steps with dynamic trees of `nodes` `[V]`; `fed` `[V, D]` nodes made each level (0: there
        is none)."""
        levels = np.where(fed > 0, self._at(fed, self.draft_level_s) + self.select_s, 0.0)
        seconds: np.ndarray = levels.sum(1) + self._at(nodes + 1, self.verify_s) + self.other_s
        return seconds

    def of_steps(self, fed: np.ndarray, most: int, dynamic: bool) -> StepCosts:
        """See `pruning.base.Costs`."""
        select_s = self.select_s if dynamic else 0.0
        drafting = np.where(fed > 0, self._at(fed, self.draft_level_s) + select_s, 0.0).sum(1)
        return StepCosts(drafting + self.other_s, self._at(np.arange(most + 1) + 1, self.verify_s))

    def _at(self, counts: list[int] | np.ndarray, seconds: list[float]) -> np.ndarray:
        """Seconds for so many tokens: linear between the sizes that were measured, and beyond the last two."""
        inside = np.interp(counts, self.sizes, seconds)
        slope = (seconds[-1] - seconds[-2]) / (self.sizes[-1] - self.sizes[-2])
        beyond: np.ndarray = inside + np.maximum(np.array(counts) - self.sizes[-1], 0) * max(slope, 0.0)
        return beyond

    def decode_s(self, topology: Topology, steps: np.ndarray) -> np.ndarray:
        """`[P]` seconds of decoding prompts in so many steps each."""
        return self.prefill_s + steps * self.step_s(topology)

    def plain_decode_s(self, new_tokens: np.ndarray) -> np.ndarray:
        """`[P]` seconds of decoding prompts plainly."""
        return self.target_prefill_s + (new_tokens - 1) * self.plain_s

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


NOT_MEASURED = CostCurve([1, 2], [nan, nan], [nan, nan], nan, nan, nan, nan, nan, 0, "")  # its estimates are empty
