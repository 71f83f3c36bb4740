"""What drafting and verifying cost with a pair: measured warm, in turns, synchronised, as medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isnan

import numpy as np
import psutil
import torch
from scipy.optimize import isotonic_regression

from specdraft.bench.curve import Circumstances, CostCurve
from specdraft.bench.kept import LARGEST, LEAST_S, date_of, device_name, within_context
from specdraft.bench.load import LoadMeter
from specdraft.bench.measuring import Cell, Timed, Timing, in_turns
from specdraft.bench.points import USUAL, CostPoint
from specdraft.bench.stand import Selection, Stand
from specdraft.bench.trust import TWIN, Key, doubts
from specdraft.drafters.pair import Pair
from specdraft.traces.watch import UNWATCHED, Watch

RECHECK_S, RECHECKED = 2.0, ("plain_s", "verify_s", "draft_s")


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
    stand = Stand(pair, point.batch, *within_context(pair, largest, point))
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
    stand = Stand(pair, curve.batch, within_context(pair, curve.sizes[-1], curve.point)[0], size)
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
