"""What drafting and verifying cost with a pair: measured warm, in turns, synchronised, as medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import isnan
from typing import NamedTuple

import numpy as np
import psutil
import torch
from scipy.optimize import isotonic_regression

from specdraft.acceptance import Greedy
from specdraft.acceptance.base import NO_SOURCE
from specdraft.bench.curve import Circumstances, CostCurve
from specdraft.bench.in_batch import in_batch
from specdraft.bench.kept import LARGEST, LEAST_S, date_of, device_name, within_context
from specdraft.bench.load import LoadMeter
from specdraft.bench.measuring import Cell, Timed, Timing, in_turns, sizes_up_to
from specdraft.bench.points import USUAL, CostPoint
from specdraft.bench.trust import TWIN, Key, doubts
from specdraft.decoding.clock import Clock
from specdraft.decoding.decode import choose, decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Prefilled
from specdraft.drafters.pair import Pair
from specdraft.sampling.distribution import Sampling
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.base import Growing, StaticPlan
from specdraft.trees.shapes.best_first import BestFirst, BestFirstPlan
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.step import Step
from specdraft.trees.topology import Topology

IN_A_ROW = 4  # steps of plain decoding that are timed together, as nothing is drafted between them
STEPS = 2  # of a short run: the last is timed, the one before it prepares what later steps find
PERIOD = 16  # tokens of the prompt, over and over
LEVELS = 3  # of a draft, behind the first one, that are timed together
SLOW_S = 0.1  # a draft that takes longer is drafted once
RECHECK_S, RECHECKED = 2.0, ("plain_s", "verify_s", "draft_s")
PREFILLS = 5  # rounds in which prompts are read


class Selection(NamedTuple):
    """A step with a dynamic tree: how many nodes were fed for each level, how many there are, seconds of it all."""

    fed: list[int]
    nodes: int
    seconds: float


def measure_costs(
    pair: Pair,
    largest: int = LARGEST,
    limit_s: float = LEAST_S,
    watch: Watch = UNWATCHED,
    now: Callable[[], float] = time.perf_counter,
    meter: LoadMeter | None = None,
    point: CostPoint = USUAL,
) -> CostCurve:
    """Measure a pair on the device that it is on.

    Args:
        pair: target and drafter.
        largest: tokens of the largest forward that costs will be asked of, 2 or more.
        limit_s: seconds that it may take; every quantity is timed once at least.
        watch: told of every quantity that is timed.
        now: the clock of the limit.
        meter: tells what else the processor does.
        point: how many tokens are committed, and how many texts go together.
    """
    started, load, meter = now(), psutil.getloadavg()[0], meter or LoadMeter()
    stand = Stand(in_batch(pair, point.batch), *within_context(pair, largest, point))
    timed = in_turns(stand.cells(), limit_s, watch, now, meter.start)
    elsewhere = meter.elsewhere()
    timings = _timings(timed, stand.levels)
    why = doubts(timings, elsewhere)
    curve = _curve(pair, timings, point, believed=not why)
    if stand.selections:
        timings["select_s", 0] = selection = _selection_s(stand.selections, curve)
        curve = replace(curve, select_s=max(selection.median, 0.0))
    stand.leave()
    used = None if isnan(elsewhere.used) else round(elsewhere.used, 2)
    spent = (date_of(time.time()), round(load, 2), round(now() - started, 3), _quartiles(timings))
    return replace(curve, measured=Circumstances(*spent, used, elsewhere.cores, tuple(why)))


def confirms(
    pair: Pair,
    curve: CostCurve,
    now: Callable[[], float] = time.perf_counter,
    meter: LoadMeter | None = None,
) -> bool:
    """Whether a pair still costs what was measured once, as far as `RECHECK_S` seconds on a quiet machine tell."""
    meter, size = meter or LoadMeter(), curve.sizes[len(curve.sizes) // 2]
    stand = Stand(in_batch(pair, curve.batch), within_context(pair, curve.sizes[-1], curve.point)[0], size)
    cells = [cell for cell in stand.cells() if cell.quantity in RECHECKED and cell.size in (0, 1, size)]
    timed = in_turns(cells, RECHECK_S, now=now, begin=meter.start)
    stand.leave()
    return not meter.elsewhere().disturbs and not any(
        t.timing.differs(_known(curve, t.cell, stand.levels)) for t in timed
    )


def _known(curve: CostCurve, cell: Cell, levels: int) -> Timing:
    """What a cell took when the curve was measured: whole drafts, whose parts are small differences."""
    known = curve.timings
    if cell.quantity != "draft_s":
        return known[cell.quantity, cell.size]
    first = known["draft_level_s", 1].plus(known["draft_begin_s", 0])
    return first.plus(known["draft_level_s", cell.size].times(levels))


class Stand:
    """A pair with a prompt in both its models, ready to be timed; whatever is timed leaves it like that.

    Args:
        pair: target and drafter.
        prefix: committed tokens.
        largest: tokens of the largest forward.

    Attributes:
        selections: steps with dynamic trees, each time that they were timed.
    """

    def __init__(self, pair: Pair, prefix: int, largest: int) -> None:
        self._pair, self._largest = pair, largest
        generator = torch.Generator().manual_seed(0)
        period = torch.randint(0, pair.target.vocab, (PERIOD,), generator=generator).tolist()
        self._ids = (period * -(-prefix // PERIOD))[:prefix]  # so that there is something to be found in it
        self._verifier, self._clock = Verifier.of(pair), Clock(pair.target.device)
        self._prompt = Prefilled(self._ids, self._verifier.prefill(self._ids).hidden)
        pair.drafter.begin(self._prompt)
        self.selections: list[Selection] = []

    def cells(self) -> list[Cell]:
        """Everything that costs are made of; what a step of drafting and verifying takes in turns stands side by
        side."""
        sizes = sizes_up_to(self._largest)
        needed = (1, min(2, self._largest), self._largest)
        middle = sizes[len(sizes) // 2]
        cells = [
            Cell("target_prefill_s", self._timed(self._read_target), most=PREFILLS),
            Cell("draft_prefill_s", self._timed(self._read_draft), most=PREFILLS),
            self._verification(TWIN, middle, spare=middle not in needed),
        ]
        for size in sizes:
            spare = size not in needed
            cells.append(self._drafting("draft_s", self._levels(size), size, spare))
            cells.append(self._verification("verify_s", size, spare))
        cells.append(self._drafting("draft_first_s", Topology([-1, 0])))
        cells += [Cell("plain_s", self._plain), Cell("other_s", self._rest_of_a_step)]
        if self._pair.traits.probabilities:
            cells.append(Cell("select_s", self._selection, varies=True))
        return cells

    def leave(self) -> None:
        """Forget the prompt."""
        hidden = self._prompt.hidden
        self._pair.target.reset()
        self._pair.drafter.begin(Prefilled([], None if hidden is None else hidden[:0]))

    def _timed(self, run: Callable[[], object]) -> Callable[[], float]:
        def sample() -> float:
            self._clock.restart()
            run()
            return self._clock.lap()

        return sample

    def _read_target(self) -> None:
        self._verifier.prefill(self._ids)

    def _read_draft(self) -> None:
        self._pair.drafter.begin(self._prompt)

    def _drafting(self, quantity: str, topology: Topology, size: int = 0, spare: bool = False) -> Cell:
        """Drafting a tree behind a verification, as every step but the first does it."""
        drafter, plan, root = self._pair.drafter, StaticPlan(topology), self._ids[-1]
        verify = self._verification("verify_s", 2, spare=False).sample
        draft = self._timed(lambda: drafter.draft(root, plan))

        def sample() -> float:
            verify()
            seconds = draft()
            drafter.rewind()
            if seconds < SLOW_S:  # of a quick draft, what a static shape makes once is a part
                verify()
                seconds = draft()
                drafter.rewind()
            return seconds

        return Cell(quantity, sample, size, spare)

    @property
    def levels(self) -> int:
        """How many levels a draft that is timed has behind the first one: `LEVELS`, as far as the drafter goes."""
        return min(LEVELS, (self._pair.traits.deepest or 1 + LEVELS) - 1)

    def _levels(self, parents: int) -> Topology:
        """A level below the root, and `levels` more below so many nodes each."""
        wide = min(parents, self._pair.files.shared_ids) if self.levels else 1
        below = [1 + row * wide + column for row in range(self.levels) for column in range(wide)]
        return Topology([-1, *[0] * wide, *below], [0, *range(wide), *[0] * len(below)])

    def _verification(self, quantity: str, size: int, spare: bool) -> Cell:
        """The target's forward over a tree of so many tokens, root included, as a step has it."""
        target, verifier = self._pair.target, Verifier.of(self._pair)
        topology = Wide().at(size - 1).topology if size > 1 else Topology([-1])
        tree = DraftTree(topology, torch.arange(size, device=target.device) % target.vocab)
        forward = self._timed(lambda: verifier.verify(tree))

        def sample() -> float:
            seconds = forward()
            target.commit([])
            return seconds

        return Cell(quantity, sample, size, spare)

    def _plain(self) -> float:
        """Seconds of a step of plain decoding, as `decode_plainly` takes it; the first one only makes it warm."""
        logits, laps = self._verifier.rewind().logits, []
        for _ in range(IN_A_ROW):
            self._clock.restart()
            token = choose(logits, Sampling(), NO_SOURCE)
            logits = self._pair.target.extend(token)
            laps.append(self._clock.lap())
        self._verifier.rewind()
        return sum(laps[1:]) / (IN_A_ROW - 1)

    def _rest_of_a_step(self) -> float:
        """Seconds of all but drafting and verifying."""
        return self._step(Chain().at(min(4, self._pair.traits.deepest or 4))).other_s

    def _selection(self) -> float:
        """Seconds of a step with a dynamic tree."""
        plan = _Remembering(**vars(BestFirst(max_depth=min(4, self._pair.traits.deepest or 4)).at(16)))
        step = self._step(plan)
        fed = plan.grown[-1].fed  # of all levels that were drafted: the tree may have no node of the last ones
        self.selections.append(Selection(fed, step.tree.num_nodes, step.draft_s + step.verify_s + step.other_s))
        return self.selections[-1].seconds

    def _step(self, plan: Plan) -> Step:
        """A step of a live run behind the prompt."""
        drafter, ending = self._pair.drafter, Ending(1 + STEPS * (1 + plan.depth))
        run = decode(self._verifier, drafter, plan, Greedy(), Sampling(), self._ids, ending, again=True)
        step = list(islice(run, STEPS))[-1]
        self._verifier.rewind()
        drafter.rewind()
        return step


def _timings(timed: Sequence[Timed], levels: int) -> dict[Key, Timing]:
    """What was timed, with one of so many levels of drafts in the place of drafts, and without what varies."""
    found = {(t.cell.quantity, t.cell.size): t.timing for t in timed if not t.cell.varies}
    whole = {size for _, size in found if {("draft_s", size), ("verify_s", size)} <= found.keys()}
    of_sizes = ("draft_s", "verify_s", TWIN)  # a size of which time left out a part is no point of a curve
    found = {key: timing for key, timing in found.items() if key[0] not in of_sizes or key[1] in whole}
    first, more = found.pop(("draft_first_s", 0)), found["draft_s", 1]
    if levels and first.median >= more.median:  # it is a part of the other: they were timed too few times to tell
        first = more.less(0.0, 1 + levels)
    for size in [size for quantity, size in found if quantity == "draft_s"]:
        found["draft_level_s", size] = found.pop(("draft_s", size)).less(first.median, max(1, levels))
    found["draft_begin_s", 0] = first.less(found["draft_level_s", 1].median)
    return found


def _curve(pair: Pair, timings: Mapping[Key, Timing], point: CostPoint, believed: bool) -> CostCurve:
    """The medians; texts of a batch are read one after another. More tokens cost no less; and where costs are believed
    in, a step costs no less than a token of plain decoding: what breaks that is within the spread."""
    sizes = sorted(size for quantity, size in timings if quantity == "verify_s")
    medians = {quantity: timing.median for (quantity, size), timing in timings.items() if not size}
    levels, verify = (_rising([timings[name, size].median for size in sizes]) for name in ("draft_level_s", "verify_s"))
    plain_s = medians["plain_s"]
    return CostCurve(
        sizes,
        levels,
        verify,
        min(plain_s, verify[0] + medians["other_s"]) if believed else plain_s,
        medians["other_s"],
        0.0,
        point.batch * (medians["target_prefill_s"] + medians["draft_prefill_s"]),
        point.batch * medians["target_prefill_s"],
        torch.get_num_threads(),
        device_name(pair),
        None,
        *point,
        medians["draft_begin_s"],
    )


def _rising(seconds: list[float]) -> list[float]:
    """The nearest numbers that never fall (least squares): neighbours that do are pooled."""
    rising: list[float] = isotonic_regression(seconds).x.tolist()
    return rising


def _selection_s(selections: list[Selection], curve: CostCurve) -> Timing:
    """Seconds that a level of a dynamic tree takes on top of what the curve says."""
    extra = []
    for fed, nodes, seconds in selections[1:] or selections:  # the first one warms up
        known = curve.dynamic_steps_s(np.array([fed]), np.array([nodes]))
        extra.append((seconds - float(known[0])) / len(fed))
    return Timing.of(extra)


def _quartiles(timings: Mapping[Key, Timing]) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    for quantity, size in sorted(timings):
        timing = timings[quantity, size]
        if quantity != TWIN:
            found.setdefault(quantity, []).append([timing.low, timing.high])
    return found


@dataclass(frozen=True)
class _Remembering(BestFirstPlan):
    """A plan that keeps how its trees grew."""

    grown: list[Growing] = field(default_factory=list)

    def growth(self, roots: int, vocab: int, whole: bool = False) -> Growing:
        """See `BestFirstPlan.growth`."""
        self.grown.append(super().growth(roots, vocab, whole))
        return self.grown[-1]
