"""A pair's costs on this machine: kept with the traces, measured where they are missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isnan, nan
from typing import Any

import numpy as np

from specdraft.bench.curve import Circumstances, CostCurve
from specdraft.bench.points import PREFIX, USUAL, CostPoint
from specdraft.drafters.pair import Pair
from specdraft.models.placement import device_of, thread_count
from specdraft.results.manifest import cpu_name
from specdraft.traces.store import TraceStore, libraries
from specdraft.traces.watch import UNWATCHED, Watch

LARGEST = 128  # tokens of the largest forward, where nobody says what trees need
LEAST_S, SHARE = 30.0, 0.1  # measuring takes at most so many seconds, or this share of what recording took

LISTS = ("sizes", "draft_level_s", "verify_s")
NUMBERS = ("plain_s", "other_s", "select_s", "draft_begin_s", "prefill_s", "target_prefill_s")
HOW, WHY = "measured", "unreliable"  # as they are stored: numbers, and texts as the bytes of JSON
QUARTILES = "quartiles."  # and of each quantity
SIDE_BY_SIDE = {"texts": "side by side"}  # of batches: older costs were those of equal rows, heads on one of them


def pair_costs(
    pair: Pair,
    store: TraceStore,
    largest: int = LARGEST,
    limit_s: float = LEAST_S,
    again: bool = False,
    watch: Watch = UNWATCHED,
    point: CostPoint = USUAL,
) -> CostCurve:
    """The pair's costs on this machine: kept with the traces, measured where they are missing, of smaller trees, not
    to be trusted, or contradicted by a look at the pair now.

    Args:
        pair, largest, limit_s, watch, point: see `costs.measure_costs`.
        store: where traces are kept.
        again: measure whatever is stored.
    """
    about, stored = _about_at(pair, point), kept_costs(pair, store, point)
    good = stored is not None and not stored.doubts
    if stored is not None and good and not again and _holds(pair, stored, within_context(pair, largest, point)[1]):
        watch.stage("costs", 0, "timings")
        return stored
    from specdraft.bench import costs

    curve = costs.measure_costs(pair, largest, limit_s, watch, point=point)
    if not (good and curve.doubts):  # what can be trusted is not given up for what cannot
        store.put(about, _tensors(curve))
    return curve


def kept_costs(pair: Pair, store: TraceStore, point: CostPoint = USUAL) -> CostCurve | None:
    """What is kept of a pair's costs at a point, whatever it says now; None where there is nothing."""
    about = _about_at(pair, point)
    return _read(store.get(about), about)


def _about_at(pair: Pair, point: CostPoint) -> dict[str, Any]:
    said = {} if point == USUAL else point._asdict()
    return _about(pair) | said | (SIDE_BY_SIDE if point.batch > 1 else {})


def _holds(pair: Pair, curve: CostCurve, largest: int) -> bool:
    """Whether it is known for forwards as large as that, and the pair still costs that. Of models that would have to be
    read for it, and take a while, nobody asks."""
    if curve.sizes[-1] < largest:
        return False
    if not ({"target", "drafter"} <= vars(pair).keys() or pair.files.bundled):
        return True
    from specdraft.bench import costs

    return costs.confirms(pair, curve)


def within_context(pair: Pair, largest: int, point: CostPoint = USUAL) -> tuple[int, int]:
    """Tokens that are committed while measuring, and of the largest forward behind them, that the pair has room for."""
    context = pair.files.context_length or point.context + largest
    prefix = min(PREFIX, context // 2) if point == USUAL else point.context
    return prefix, min(largest, context - prefix)


def _tensors(curve: CostCurve) -> dict[str, np.ndarray]:
    """What is stored of a curve: numbers."""
    assert curve.measured is not None
    tensors = {name: np.array(getattr(curve, name)) for name in LISTS}
    tensors |= {name: np.array([getattr(curve, name)]) for name in NUMBERS}
    measured = curve.measured
    when = datetime.fromisoformat(measured.date).timestamp()
    used = nan if measured.elsewhere is None else measured.elsewhere
    tensors |= {HOW: np.array([when, measured.load, measured.seconds, used, measured.cores])}
    tensors |= {WHY: np.frombuffer(json.dumps(measured.unreliable).encode(), np.uint8)}
    return tensors | {QUARTILES + name: np.array(values) for name, values in measured.quartiles.items()}


def _read(tensors: Mapping[str, np.ndarray] | None, about: Mapping[str, Any]) -> CostCurve | None:
    """The curve of stored numbers; None where there are none, or others."""
    names = {name for name in tensors or {} if not name.startswith(QUARTILES)}
    if tensors is None or names != {*LISTS, *NUMBERS, HOW, WHY}:
        return None
    values: dict[str, Any] = {n: tensors[n].tolist() for n in LISTS} | {n: float(tensors[n][0]) for n in NUMBERS}
    when, load, seconds, used, cores = tensors[HOW].tolist()
    why = tuple(json.loads(tensors[WHY].tobytes()))
    quartiles = {n.removeprefix(QUARTILES): v.tolist() for n, v in sorted(tensors.items()) if n.startswith(QUARTILES)}
    known = None if isnan(used) else used
    measured = Circumstances(date_of(when), load, seconds, quartiles, known, int(cores), why)
    point = {name: about[name] for name in CostPoint._fields if name in about}
    return CostCurve(**values, **point, threads=about["threads"], device=about["device"], measured=measured)


def date_of(seconds: float) -> str:
    """Seconds since 1970 as a date, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _about(pair: Pair) -> dict[str, Any]:
    """Everything that costs depend on."""
    return {
        "kind": "costs",
        "target": pair.target_facts,
        "draft": pair.draft_facts,
        "device": device_name(pair),
        "threads": thread_count(),
        "libraries": libraries(),
    }


def device_name(pair: Pair) -> str:
    """What the pair is on, as the system calls it."""
    if pair.target_facts["device"] != "cuda":
        return cpu_name()
    import torch

    name, cards = torch.cuda.get_device_name(device_of(pair.files.target)), pair.files.target.spec.cards or 1
    return name if cards == 1 else f"{cards} x {name}"
