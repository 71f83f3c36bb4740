"""What drafting and verifying cost with a pair: measured warm, synchronised, as medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import psutil
import torch

from specdraft.acceptance import Greedy
from specdraft.acceptance.base import NO_SOURCE
from specdraft.bench.curve import Circumstances, CostCurve
from specdraft.bench.kept import LARGEST, LEAST_S, date_of, device_name, within_context
from specdraft.bench.measuring import Allowance, Timing, endless, sizes_up_to
from specdraft.decoding.decode import Clock, choose, decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Drafter, Prefilled
from specdraft.drafters.pair import Pair
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import tail_mask
from specdraft.sampling.distribution import Sampling, standardise
from specdraft.traces.watch import UNWATCHED, Watch
from specdraft.trees.shapes import Plan
from specdraft.trees.shapes.base import Growing
from specdraft.trees.shapes.best_first import BestFirst, BestFirstPlan
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.step import Step

SHORT = 4  # of the committed tokens while measuring, runs behind them have a fourth as many


class OfSize(NamedTuple):
    """What was timed with so many tokens."""

    draft_level: Timing
    verify: Timing


def measure_costs(
    pair: Pair,
    largest: int = LARGEST,
    limit_s: float = LEAST_S,
    watch: Watch = UNWATCHED,
    now: Callable[[], float] = time.perf_counter,
) -> CostCurve:
    """Measure a pair on the device that it is on.

    Args:
        pair: target and drafter.
        largest: tokens of the largest forward that costs will be asked of, 2 or more.
        limit_s: seconds that it may take; every quantity is timed once at least.
        watch: told of every quantity that is timed.
        now: the clock of the limit.
    """
    prefix, largest = within_context(pair, largest)
    ids = torch.randint(0, pair.target.vocab, (prefix,), generator=torch.Generator().manual_seed(0)).tolist()
    target, verifier, load = pair.target, Verifier.of(pair), psutil.getloadavg()[0]
    allowance = Allowance(limit_s, 2 * len(sizes_up_to(largest)) + 5, watch, now)

    def timed(run: Callable[[], object]) -> Timing:
        return allowance.time(partial(_lap, Clock(target.device), run))

    def timed_size(size: int) -> OfSize:
        return OfSize(timed(partial(pair.drafter.rehearse, size)), timed(partial(_verify, target, size)))

    rest = {"target_prefill_s": timed(lambda: verifier.prefill(ids))}
    prompt = Prefilled(ids, verifier.rewind().hidden)
    rest["draft_prefill_s"] = timed(lambda: pair.drafter.begin(prompt))
    by_size = {1: timed_size(1), largest: timed_size(largest)}
    for size in sizes_up_to(largest)[1:-1]:
        if allowance.is_behind:
            allowance.skip(2)
        else:
            by_size[size] = timed_size(size)
    rest["plain_s"] = allowance.time(endless(lambda: _plain_steps(verifier, prefix)).__next__)
    rest["other_s"] = allowance.time(endless(lambda: _rests_of_steps(verifier, pair.drafter, ids)).__next__)
    curve = _curve(pair, by_size, rest)
    if pair.traits.probabilities:
        rest["select_s"] = allowance.time(endless(lambda: _selections(verifier, pair.drafter, ids, curve)).__next__)
    target.reset()
    pair.drafter.begin(Prefilled([], None if prompt.hidden is None else prompt.hidden[:0]))
    seconds = round(allowance.spent_s, 3)
    measured = Circumstances(date_of(time.time()), round(load, 2), seconds, _quartiles(by_size, rest))
    return replace(_curve(pair, by_size, rest), measured=measured)


def _curve(pair: Pair, by_size: Mapping[int, OfSize], rest: Mapping[str, Timing]) -> CostCurve:
    ascending = [by_size[size] for size in sorted(by_size)]
    return CostCurve(
        sorted(by_size),
        [of_size.draft_level.median for of_size in ascending],
        [of_size.verify.median for of_size in ascending],
        rest["plain_s"].median,
        rest["other_s"].median,
        max(rest["select_s"].median, 0.0) if "select_s" in rest else 0.0,
        rest["target_prefill_s"].median + rest["draft_prefill_s"].median,
        rest["target_prefill_s"].median,
        torch.get_num_threads(),
        device_name(pair),
    )


def _quartiles(by_size: Mapping[int, OfSize], rest: Mapping[str, Timing]) -> dict[str, list[list[float]]]:
    ascending = [by_size[size] for size in sorted(by_size)]
    timings = {"draft_level_s": [of_size.draft_level for of_size in ascending]}
    timings |= {"verify_s": [of_size.verify for of_size in ascending]}
    timings |= {name: [timing] for name, timing in rest.items()}
    return {name: [[timing.low, timing.high] for timing in timings[name]] for name in sorted(timings)}


def _lap(clock: Clock, run: Callable[[], object]) -> float:
    clock.restart()
    run()
    return clock.lap()


def _verify(model: CachedModel, size: int) -> None:
    """A forward over `size` siblings after the prefix, which stays as it was."""
    tokens = torch.arange(size, device=model.device) % model.vocab
    tail = tail_mask(torch.eye(size, dtype=torch.bool, device=model.device), model.dtype)
    model.append(tokens, torch.zeros_like(tokens), tail)
    model.commit([])


def _plain_steps(verifier: Verifier, steps: int) -> Iterator[float]:
    """Seconds of each step of plain decoding behind the prefix, as `decode_plainly` takes them."""
    logits, clock = verifier.rewind().logits, Clock(verifier.model.device)
    for _ in range(max(1, steps // SHORT)):
        clock.restart()
        logits = verifier.model.extend(choose(standardise(logits[None], Sampling()), Sampling(), NO_SOURCE))
        yield clock.lap()


def _short_run(verifier: Verifier, drafter: Drafter, plan: Plan, ids: list[int]) -> Iterator[Step]:
    """The steps of a live run behind the prefix, which both models hold."""
    ending = Ending(max(2, len(ids) // SHORT))
    yield from decode(verifier, drafter, plan, Greedy(), Sampling(), ids, ending, again=True)


def _rests_of_steps(verifier: Verifier, drafter: Drafter, ids: list[int]) -> Iterator[float]:
    """Seconds of all but drafting and verifying in each step."""
    for step in _short_run(verifier, drafter, Chain().at(min(4, drafter.traits.deepest or 4)), ids):
        yield step.other_s


def _selections(verifier: Verifier, drafter: Drafter, ids: list[int], curve: CostCurve) -> Iterator[float]:
    """Seconds that a level of a dynamic tree takes in each step on top of what the curve says."""
    plan = _Remembering(**vars(BestFirst(max_depth=min(4, drafter.traits.deepest or 4)).at(16)))
    for step in _short_run(verifier, drafter, plan, ids):
        fed = plan.grown[-1].fed  # of all levels that were drafted: the tree may have no node of the last ones
        known = curve.dynamic_steps_s(np.array([fed]), np.array([step.tree.num_nodes]))
        yield (step.draft_s + step.verify_s + step.other_s - float(known[0])) / len(fed)


@dataclass(frozen=True)
class _Remembering(BestFirstPlan):
    """A plan that keeps how its trees grew."""

    grown: list[Growing] = field(default_factory=list)

    def growth(self, roots: int, vocab: int, whole: bool = False) -> Growing:
        """See `BestFirstPlan.growth`."""
        self.grown.append(super().growth(roots, vocab, whole))
        return self.grown[-1]
