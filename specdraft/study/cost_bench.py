"""What `specdraft bench costs` does: measures a pair's costs, and sets estimates from them beside live decoding."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from specdraft.acceptance import Greedy
from specdraft.bench.curve import CostCurve
from specdraft.bench.in_batch import SideBySide, drafter_of
from specdraft.bench.kept import pair_costs
from specdraft.bench.points import CostPoint, no_room
from specdraft.config import Settings, compose_study, unless_said
from specdraft.config.settings import CostSpec
from specdraft.decoding.decode import decode, plain_tokens
from specdraft.decoding.ending import Ending
from specdraft.decoding.seat import Seat
from specdraft.drafters.pair import Pair, PairFiles, find_pair, load_pair
from specdraft.errors import ConfigError
from specdraft.prompts import Prompt, PromptSpec, load_prompts
from specdraft.replay.redraft import Redrafting
from specdraft.replay.replayer import Replayer, dynamic_trees
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import encode_all
from specdraft.study.pair_names import named_points
from specdraft.study.points import schemas
from specdraft.study.progress import Progress
from specdraft.study.refusals import STUDY_KEYS, refuse_bundled_path, refuse_engine, refuse_without_effect
from specdraft.study.run import threads
from specdraft.traces.library import pair_traces
from specdraft.traces.store import TraceStore, default_folder
from specdraft.trees.shapes import Plan, registry
from specdraft.trees.shapes.base import check_budget

COMMAND = "bench costs"
LARGEST = 64  # draft nodes, where nobody says what trees need
PROMPTS = 12  # of the validation, where nobody says otherwise
SHAPES, BUDGETS = ("chain", "kary", "beam", "branching", "wide", "best_first"), (4, 8, 16)
MEAN, WORST = 0.10, 0.20  # errors that estimates may have on a quiet machine


@dataclass(frozen=True)
class CostPlan:
    """A pair whose costs are to be measured, and the prompts of the validation."""

    files: PairFiles
    settings: Settings
    points: list[CostPoint]
    prompts: list[Prompt]
    prompt_ids: Mapping[str, list[int]]


def plan_costs(overrides: list[str], config_dir: Path | None, validate: bool) -> CostPlan:
    """Find the models, and encode the prompts where estimates are validated.

    Raises:
        ConfigError: an override cannot be meant, or has no effect here.
        PromptError, ModelError: as `plan_study`.
    """
    refuse_without_effect(COMMAND, overrides, ("tree",), "costs are those of any tree; budget= is the largest")
    refuse_without_effect(
        COMMAND, overrides, ("sampling", "acceptance", "pruning", "length"), "costs do not depend on it"
    )
    of_studies = [key for key in STUDY_KEYS if key not in ("threads", "cost")]
    of_studies += ["cost.measure", "cost.table"]
    refuse_without_effect(COMMAND, overrides, (*of_studies, "experiment"), "it is for a study (specdraft sweep)")
    refuse_engine(COMMAND, overrides, "live")
    if not validate:
        of_texts = ("prompts", "max_new_tokens", "max_prompt_tokens")
        refuse_without_effect(COMMAND, overrides, of_texts, "only --validate decodes texts")
    said = [*_unsaid("budget", LARGEST, overrides), *_unsaid("prompts.limit", PROMPTS, overrides), *overrides]
    study = compose_study([*unless_said(said, {"pair": "zoo"}), "tree=wide", *said], schemas(), config_dir)
    points = [CostPoint(p.settings.cost.context, p.settings.cost.batch) for p in study.points]
    if len({repr((p.groups, replace(p.settings, cost=CostSpec()))) for p in study.points}) > 1:
        raise ConfigError("one pair at a time; of several values only cost.context and cost.batch are measured in turn")
    (point,) = named_points(study.points[:1])
    spec: PromptSpec = point.groups["prompts"]
    refuse_bundled_path(overrides, spec)
    files, settings = find_pair(point.groups["pair"], point.groups["drafter"]), point.settings
    check_budget(settings.budget)
    files.check()
    for at in points:
        if why := no_room(files, at, 1 + settings.budget):
            raise ConfigError(why)
    if not validate:
        return CostPlan(files, settings, points, [], {})
    if len(points) > 1:
        raise ConfigError("--validate takes one point; give one cost.context and one cost.batch")
    prompts = load_prompts(spec)
    ids = encode_all(files, prompts, spec.chat_template, settings, max(BUDGETS))
    return CostPlan(files, settings, points, prompts, ids)


def _unsaid(key: str, value: int, overrides: Sequence[str]) -> list[str]:
    return [] if any(text.startswith(f"{key}=") for text in overrides) else [f"{key}={value}"]


class CostRun(NamedTuple):
    """What came of it.

    Attributes:
        pair: its name.
        curves: its costs, at each point.
        validation: a row for each tree: estimated and measured speed-up over plain decoding, and the error of the
            estimate; None where that was not asked for.
    """

    pair: str
    curves: list[CostCurve]
    validation: pd.DataFrame | None

    @property
    def mean_error(self) -> float:
        """Of the validation, sizes alone."""
        assert self.validation is not None
        return float(self.validation["error"].abs().mean())

    @property
    def worst_error(self) -> float:
        """The largest one, with its sign."""
        assert self.validation is not None
        return float(self.validation["error"].iloc[self.validation["error"].abs().argmax()])


def run_costs(plan: CostPlan, validate: bool, progress: Progress) -> CostRun:
    """Measure. Raises `UserError` where the pair cannot be loaded."""
    with threads(plan.settings.threads):
        progress.stage("load", 1, "models")
        pair, store = load_pair(plan.files), TraceStore(default_folder())
        progress.done(1)
        if not validate:
            curves = [_measured(plan, pair, store, progress, point) for point in plan.points]
            return CostRun(plan.files.label, curves, None)
        return _validated(plan, pair, store, progress)


def _measured(plan: CostPlan, pair: Pair, store: TraceStore, progress: Progress, point: CostPoint) -> CostCurve:
    return pair_costs(pair, store, 1 + plan.settings.budget, again=True, watch=progress, point=point)


def _validated(plan: CostPlan, pair: Pair, store: TraceStore, progress: Progress) -> CostRun:
    """Half of the prompts are decoded before the costs are measured, the other half after it, so that a machine that
    gets slower meanwhile does not look like an error of the estimates."""
    plans = _plans(pair)
    if not plans:
        raise ConfigError(f"drafter={pair.files.drafter.label} drafts none of the trees that are validated")
    live, names = Live(plan, pair, plans), list(plan.prompt_ids)
    half = ceil(len(names) / 2)
    live.decode(names[:half], progress)
    curve = _measured(plan, pair, store, progress, plan.points[0])
    live.decode(names[half:], progress)
    estimated = _estimated(plan, pair, store, plans, curve, progress)
    rows = [(*name, estimated[name], live.speedup(name), estimated[name] / live.speedup(name) - 1) for name in plans]
    columns = ["tree", "budget", "est_speedup", "speedup", "error"]
    return CostRun(plan.files.label, [curve], pd.DataFrame(rows, columns=columns))


Name = tuple[str, int]  # a shape and a budget


def _plans(pair: Pair) -> dict[Name, Plan]:
    """The trees that this drafter can make."""
    from specdraft.decoding.fitting import Together

    plans = {}
    for kind in SHAPES:
        for budget in BUDGETS:
            given = (Greedy(), Sampling(), pair.files.shared_ids, "replay")
            together = Together(
                registry()[kind](), budget, *given, traits=pair.traits, drafter=pair.files.drafter.label
            )
            try:
                together.refuse()
            except ConfigError:
                continue
            plans[kind, budget] = together.shape.at(budget)
    return plans


class Live:
    """Seconds of live decoding, plainly and with each tree, prompt by prompt: each in all places of a batch, which so
    stays full, as costs have it."""

    def __init__(self, plan: CostPlan, pair: Pair, plans: Mapping[Name, Plan]) -> None:
        self._plans, self._ids = plans, plan.prompt_ids
        self._together = SideBySide(pair, plan.points[0].batch)
        self._ending = Ending(plan.settings.max_new_tokens, pair.eos_ids)
        self._seconds: dict[Name | None, list[float]] = {name: [] for name in (None, *plans)}
        self._turn = 0

    def decode(self, prompts: Sequence[str], progress: Progress) -> None:
        """Some prompts: everything decodes one prompt, each time something else first."""
        progress.stage("decode", len(prompts) * len(self._seconds), "texts")
        ways = list(self._seconds)
        for name in prompts:
            for way in ways[self._turn % len(ways) :] + ways[: self._turn % len(ways)]:
                if not self._turn:
                    self._once(way, self._ids[name])  # warms up
                self._seconds[way].append(self._once(way, self._ids[name]))
                progress.done(1)
            self._turn += 5

    def _once(self, way: Name | None, ids: list[int]) -> float:
        began = time.perf_counter()
        self._together.all(partial(self._decoded, way, ids))
        return time.perf_counter() - began

    def _decoded(self, way: Name | None, ids: list[int], seat: Seat) -> None:
        if way is None:
            list(plain_tokens(seat.verifier, Sampling(), ids, self._ending))
        else:
            given = (self._plans[way], Greedy(), Sampling(), ids, self._ending)
            decode(seat.verifier, drafter_of(seat), *given, times=seat.times).finish()

    def speedup(self, way: Name) -> float:
        """Over plain decoding."""
        return sum(self._seconds[None]) / sum(self._seconds[way])


def _estimated(
    plan: CostPlan, pair: Pair, store: TraceStore, plans: Mapping[Name, Plan], curve: CostCurve, progress: Progress
) -> dict[Name, float]:
    """Speed-ups that a replayed study would estimate, whether or not the costs can be trusted."""
    ending = Ending(plan.settings.max_new_tokens, pair.eos_ids)
    traces = pair_traces(pair, plan.prompt_ids, Sampling(), ending, store, watch=progress)
    trees = dynamic_trees(pair, plan.prompt_ids, traces, plans.values(), store, lambda text: None, progress)
    redrafting = Redrafting(pair.drafter, plan.prompt_ids, traces) if pair.traits.from_tokens else None
    replayer = Replayer(traces, plan.prompts, curve.believed, plan.settings.seed, trees, redrafting=redrafting)
    sums = {name: replayer.run_plan(tree, Greedy()).sums for name, tree in plans.items()}
    return {name: float(np.sum(found["est_plain_s"]) / np.sum(found["est_s"])) for name, found in sums.items()}
