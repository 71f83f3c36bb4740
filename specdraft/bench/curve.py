"""What a replayed run would take, from what its pieces cost.

An estimate of time from counts: prefills + steps x (draft levels + verification + the rest of a step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import nan
from typing import Any

import numpy as np

from specdraft.bench.measuring import Timing, deviation
from specdraft.bench.points import PREFIX, CostPoint
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
        elsewhere: cores that other work used meanwhile, of the `cores` that there were; None where nobody could tell.
        unreliable: why these costs say little; empty where they can be trusted.
    """

    date: str
    load: float
    seconds: float
    quartiles: dict[str, list[list[float]]]
    elsewhere: float | None = None
    cores: int = 0
    unreliable: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Circumstances:
        """Out of what `asdict` gave."""
        return cls(**{**values, "unreliable": tuple(values.get("unreliable", ()))})


@dataclass(frozen=True)
class CostCurve:
    """Seconds on one machine.

    Attributes:
        sizes: numbers of tokens that were measured, ascending.
        draft_level_s: drafting one level whose parents are so many nodes, behind another level.
        verify_s: the target's forward over so many tokens (root included).
        plain_s: one step of plain decoding.
        other_s: the rest of a step: acceptance, cache upkeep.
        select_s: what one level of a dynamic tree takes on top: choosing its nodes, masks made anew in each step.
        prefill_s: both models on a prompt of `kept.PREFIX` tokens; `target_prefill_s`: the target alone.
        measured: how; None of costs that are made up.
        draft_begin_s: what the first level of a step takes on top: the target's forward has left nothing of the drafter
            in the processor's caches.
        context, batch: committed tokens of each text meanwhile, and texts that went together; seconds are of all of
            them, as the live engine decodes them: a forward of the target, or of a draft model, is one over all texts;
            what heads and look-ups draft, and the rest of a step, is done text by text and costs that many times.
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
    context: int = PREFIX
    batch: int = 1
    draft_begin_s: float = 0.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> CostCurve:
        """Out of what `as_dict` gave. Raises `TypeError` where it is something else."""
        measured = values.get("measured")
        return cls(**{**values, "measured": Circumstances.of(measured) if measured else None})

    @property
    def point(self) -> CostPoint:
        """What these costs are of."""
        return CostPoint(self.context, self.batch)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why no time should be estimated from these costs; empty where they can be trusted.

        No step costs less than one without any nodes. As long as that is no less than a token of plain decoding, no
        estimated speed-up exceeds the block efficiency: `(T + a p) / (T + s p) <= a / s` for a tokens in s <= a steps.
        """
        said = self.measured.unreliable if self.measured else ()
        least_s = self.verify_s[0] + self.other_s
        if self.plain_s > least_s and not said:
            return (f"a token of plain decoding ({self.plain_s:.3g} s) costs more than any step ({least_s:.3g} s)",)
        return said

    @property
    def believed(self) -> CostCurve:
        """The same without doubts, for whoever says of the estimates what they are."""
        plain_s = min(self.plain_s, self.verify_s[0] + self.other_s)
        measured = replace(self.measured, unreliable=()) if self.measured else None
        return replace(self, plain_s=plain_s, measured=measured)

    @property
    def timings(self) -> dict[tuple[str, int], Timing]:
        """Quantity and number of tokens (0 where that does not matter) -> what was timed."""
        spread = self.measured.quartiles if self.measured else {}
        alone = [0]
        found: dict[tuple[str, int], Timing] = {}
        of = {"verify_s": self.sizes, "draft_level_s": self.sizes, "plain_s": alone, "draft_begin_s": alone}
        for name, sizes in of.items():
            medians = np.atleast_1d(getattr(self, name)).tolist()
            ends = spread.get(name) or [[median, median] for median in medians]
            found |= {(name, size): Timing(m, *e) for size, m, e in zip(sizes, medians, ends, strict=True)}
        return found

    @cached_property
    def varied(self) -> list[CostCurve]:
        """This curve with one of its numbers at a time larger by a standard deviation of its own timings, not of their
        median: costs of another hour differ by more than many timings of this one tell."""
        spread = self.measured.quartiles if self.measured else {}
        curves = []
        for name in ("draft_level_s", "verify_s"):
            for place, ends in enumerate(spread.get(name, [])):
                seconds = [*getattr(self, name)]
                seconds[place] += deviation(*ends)
                curves.append(self._with(name, seconds))
        for name in ("plain_s", "other_s", "select_s", "draft_begin_s"):
            curves += [self._with(name, getattr(self, name) + deviation(*ends)) for ends in spread.get(name, [])]
        for ends in spread.get("target_prefill_s", []):
            both = {part: getattr(self, part) + deviation(*ends) for part in ("prefill_s", "target_prefill_s")}
            curves.append(replace(self, **both))
        for ends in spread.get("draft_prefill_s", []):
            curves.append(replace(self, prefill_s=self.prefill_s + deviation(*ends)))
        return curves

    def _with(self, name: str, value: Any) -> CostCurve:
        changed: dict[str, Any] = {name: value}
        return replace(self, **changed)

    def step_s(self, topology: Topology) -> float:
        """Seconds of one verification step with this tree."""
        drafting = self._drafting_s(np.array([topology.parents_by_level]), 0.0)[0]
        return float(drafting + self._at([len(topology)], self.verify_s)[0] + self.other_s)

    def dynamic_steps_s(self, fed: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """`[V]` seconds of steps with dynamic trees of `nodes` `[V]`; `fed` `[V, D]` nodes made each level (0: there
        is none)."""
        drafting = self._drafting_s(fed, self.select_s)
        seconds: np.ndarray = drafting + self._at(nodes + 1, self.verify_s) + self.other_s
        return seconds

    def of_steps(self, fed: np.ndarray, most: int, dynamic: bool) -> StepCosts:
        """See `pruning.base.Costs`."""
        drafting = self._drafting_s(fed, self.select_s if dynamic else 0.0)
        return StepCosts(drafting + self.other_s, self._at(np.arange(most + 1) + 1, self.verify_s))

    def _drafting_s(self, fed: np.ndarray, select_s: float) -> np.ndarray:
        """`[V]` seconds of drafting; `fed` as in `dynamic_steps_s`, `select_s` on top of each level."""
        levels = np.where(fed > 0, self._at(fed, self.draft_level_s) + select_s, 0.0)
        seconds: np.ndarray = levels.sum(1) + self.draft_begin_s * (fed > 0).any(1)
        return seconds

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


def estimates(
    costs: CostCurve, new_tokens: np.ndarray, seconds: Callable[[CostCurve], np.ndarray]
) -> dict[str, np.ndarray]:
    """`[P]` each: the estimates of time of prompts, and what the spread of the costs leaves open (see
    `metrics.Tally`); empty where costs cannot be trusted.

    The costs' errors are independent: each moves the seconds by what one standard deviation of it does, and the moves
    add in squares. On all prompts they act alike, so the sums over prompts are those of the deviations.

    Args:
        costs: measured.
        new_tokens: `[P]` that were emitted.
        seconds: gives `[P]` seconds of decoding with a tree, by costs.
    """
    known = np.nan if costs.doubts else 1.0
    spent, plain = known * seconds(costs), known * costs.plain_decode_s(new_tokens)
    moved, ratio_moved = np.zeros_like(spent), np.zeros_like(spent)
    for one in costs.varied:
        share, plain_share = seconds(one) / spent - 1, one.plain_decode_s(new_tokens) / plain - 1
        moved, ratio_moved = moved + share**2, ratio_moved + (plain_share - share) ** 2
    spread = {"est_s_spread": spent * np.sqrt(moved), "est_speedup_spread": spent * np.sqrt(ratio_moved)}
    return {"est_s": spent, "est_plain_s": plain, **spread}


def not_reliable(pair: str, doubts: Sequence[str]) -> str:
    """What is said in the place of estimates, and what to do."""
    return (
        f"time: not reliable here for {pair}, because {doubts[0]}, so nothing is estimated; on a quiet machine, the "
        "same command with cost.measure=again measures again (a cost.table: specdraft bench costs --out FILE)"
    )


NOT_MEASURED = CostCurve([1, 2], [nan, nan], [nan, nan], nan, nan, nan, nan, nan, 0, "")  # its estimates are empty
