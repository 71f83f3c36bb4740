"""`specdraft tune`: replay what an engine can be told, and choose on one half of the prompts what is timed on the
other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specdraft.bench.curve import CostCurve
from specdraft.bench.points import CostPoint
from specdraft.config import override_groups, override_keys
from specdraft.errors import ConfigError, did_you_mean
from specdraft.replay.folds import folds
from specdraft.results.best_at_time import Times
from specdraft.results.intervals import Interval
from specdraft.study.combination import Combination
from specdraft.study.engines.costs import cost_point
from specdraft.study.fitted_tree import fit_tree
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.progress import Progress
from specdraft.study.refusals import refuse_without_effect
from specdraft.study.run import Outcome, run_study
from specdraft.study.tuning.answer import AtPoint, Candidate, Tuned
from specdraft.study.tuning.choose import FEWEST, Field
from specdraft.study.tuning.engine_files import engine_files
from specdraft.study.tuning.engines import ENGINES, Grid, Setting, TargetEngine
from specdraft.study.tuning.rates import rates_of
from specdraft.trees.shapes.expand_rerank import ExpandRerank

OWN = ("tree", "budget", "engine", "length", "pruning", "batch", "cache", "output", "certify", "report", "experiment",
       "name", "repeats")  # fmt: skip
BATCHES = "cost.batch=1,8,32"  # where nothing is said of costs


@dataclass(frozen=True)
class TunePlan:
    """What is replayed.

    Attributes:
        plans: one after the other into one folder.
        combinations: the candidates by name.
    """

    engine: TargetEngine
    plans: list[StudyPlan]
    combinations: dict[str, Combination]
    overrides: list[str]
    config_dir: Path | None

    @property
    def points(self) -> list[CostPoint]:
        """What times are estimated for, in the order in which they were asked for."""
        return [*dict.fromkeys(map(cost_point, self.combinations.values()))]


def plan_tune(engine: str, overrides: Sequence[str], config_dir: Path | None = None) -> TunePlan:
    """Everything that can be checked without a forward pass.

    Raises:
        ConfigError: there is no such engine, it has no such drafter, or an override is one of the tuner's own.
    """
    if engine not in ENGINES:
        raise ConfigError(f"--engine {engine}: there is no such engine{did_you_mean(engine, ENGINES)}")
    refuse_without_effect("tune", overrides, OWN, f"it tries what --engine {engine} can be told")
    for text in overrides:
        (key,) = override_keys([text])
        if key == "cost.measure" and text.endswith("off"):
            raise ConfigError(f"{text}: tune needs costs; leave it out, or give cost.table=FILE")
    chosen = ENGINES[engine]
    mine = [*_rule(chosen, overrides), *([] if "cost" in override_groups(overrides) else [BATCHES]), *overrides]
    plans = _plans(chosen, mine, config_dir)
    combinations = {c.identifier: c for plan in plans for c in plan.combinations}
    if len({c.pair.spec.name for c in combinations.values()}) > 1:
        raise ConfigError("one pair at a time is tuned; its drafters may be several (drafter=model,ngram)")
    if len({repr((c.sampling, c.drawn)) for c in combinations.values()}) > 1:
        raise ConfigError("one sampling setting at a time is tuned")
    _refuse_more(engine, combinations.values())
    if len(plans[0].prompts) < FEWEST:
        raise ConfigError(f"tune needs {FEWEST} prompts at least, half of them to choose on; there are "
                          f"{len(plans[0].prompts)}")  # fmt: skip
    return TunePlan(chosen, plans, combinations, mine, config_dir)


def _refuse_more(engine: str, combinations: Iterable[Combination]) -> None:
    """Raise `ConfigError` for what candidates may not differ in, and for what no engine is told."""
    told = {"acceptance": [repr(c.rule) for c in combinations],
            "max_new_tokens": [str(c.settings.max_new_tokens) for c in combinations]}  # fmt: skip
    for name, values in told.items():
        if len(set(values)) > 1:
            raise ConfigError(f"{name} cannot be swept in tune: candidates must differ in what the engine is told")
    kinds = [c.pair.drafter.kind for c in {c.pair.label: c for c in combinations}.values()]
    if len(kinds) > len(set(kinds)):
        raise ConfigError("a drafter's parameters cannot be swept in tune; its kinds may (drafter=model,ngram)")
    for c in combinations:
        if c.drawn.temperatures:
            raise ConfigError(f"sampling.draft_temperature={c.drawn.said}: no engine is told of one; leave it out")
        if c.pair.target.encodes and engine != "hf":
            raise ConfigError(f"--engine {engine} does not draft for encoder-decoders ({c.pair.target.spec.path})")
        if c.pair.target.spec.served and c.settings.cost.table is None:
            raise ConfigError("tune needs costs, and those of a served target are not measured; give cost.table=FILE")


def _plans(engine: TargetEngine, overrides: Sequence[str], config_dir: Path | None) -> list[StudyPlan]:
    """A study for each grid of candidates, with nothing in it but these."""
    plans, unfit = [], list[ConfigError]()
    for grid in engine.grids:
        try:
            plan = plan_study(["name=tune", "report=false", "engine=replay", *overrides, *grid], config_dir)
        except ConfigError as error:
            if not str(error).startswith("no combination is left"):
                raise
            unfit.append(error)
            continue
        for combination in plan.combinations:
            engine.named(combination.pair)
        taken = [c for c in plan.combinations if not c.shape.reference and engine.takes(Setting.of(c), c.pair)]
        plans += [replace(plan, combinations=taken)] if taken else []
    if not plans:
        raise unfit[0] if unfit else ConfigError(f"--engine {engine.kind} can be told of nothing that fits")
    return plans


def _rule(engine: TargetEngine, overrides: Sequence[str]) -> list[str]:
    """Under sampling, the rule by which the engine accepts, where none is named."""
    given = [text.partition("=")[2] for text in overrides if override_keys([text]) == ["sampling.temperature"]]
    sampled = any(value.strip("0.") for value in given) or "sampling=sample" in overrides
    return [f"acceptance={engine.sampled_rule}"] if sampled and "acceptance" not in override_groups(overrides) else []


def run_tune(plan: TunePlan, out: Path, progress: Progress) -> Tuned:
    """Replay all candidates, choose, and replay the chosen one's steps.

    Raises:
        ConfigError: times cannot be estimated from the costs.
        ResultsError: the folder cannot be used.
    """
    doubts: dict[CostPoint, str] = {}
    for one in plan.plans:
        outcome = run_study(one, out, progress=progress)
        if outcome.failures:
            failed = f"{len(outcome.failures)} of its candidates failed"
            raise ConfigError(f"nothing can be tuned: {failed} ({outcome.failures[0].error})")
        for curve in outcome.costs.values():
            if curve.doubts:
                doubts[curve.point] = curve.doubts[0]
    fields, left_out = _fields(plan, outcome, doubts)
    tuned = _answer(plan, fields, left_out)
    combination = plan.combinations[tuned.best.identifier]
    rates = rates_of(combination, _making(combination, plan), plan.config_dir, out, progress)
    tuned = _with_choices(replace(tuned, rates=rates), plan)
    return replace(tuned, files=engine_files(plan.engine, tuned))


def _fields(
    plan: TunePlan, outcome: Outcome, doubts: Mapping[CostPoint, str]
) -> tuple[dict[CostPoint, Field], list[str]]:
    """The candidates at every point of which costs are known, and why others are left out.

    Raises:
        ConfigError: nothing is known of the first point.
    """
    rows = outcome.tables["summary.csv"].set_index("combination")
    fields, left_out = dict[CostPoint, Field](), list[str]()
    for point in plan.points:
        here = [name for name, one in plan.combinations.items() if cost_point(one) == point]
        named = outcome.tables_of([name for name in here if name in rows.index])["records.csv"]
        why = f"times are not reliable: {doubts[point]}" if point in doubts else ""
        if not why and named["est_speedup"].isna().any():
            why = "its costs are not known"
        if why and point == plan.points[0]:
            again = "on a quiet machine, the same with cost.measure=again"
            raise ConfigError(f"nothing can be tuned: {why}" + (f"; {again}" if point in doubts else ""))
        if why:
            left_out.append(f"{point}: {why}")
            continue
        everywhere = named.groupby("prompt_id", observed=True)["combination"].transform("nunique") == len(here)
        named = named[everywhere]
        if named["prompt_id"].nunique() < FEWEST:
            raise ConfigError(f"tune needs {FEWEST} prompts at least that have a text with every candidate")
        times = Times.estimated(named, ["combination"])
        count = len(times.categories)
        candidates = {name: _candidate(plan.engine, plan.combinations[name], rows.loc[name], count)
                      for name in times.names}  # fmt: skip
        halves = folds(times.categories, plan.plans[0].settings.seed)
        fields[point] = Field.of(times, candidates, halves, _costs_at(point, candidates.values(), outcome))
    return fields, left_out


def _costs_at(point: CostPoint, candidates: Iterable[Candidate], outcome: Outcome) -> dict[str, CostCurve]:
    """Pair -> its costs at a point."""
    return {label: outcome.costs[point.of(label)] for label in {one.pair for one in candidates}}


def _answer(plan: TunePlan, fields: Mapping[CostPoint, Field], left_out: list[str]) -> Tuned:
    """The answer at the first point, and what is best at each."""
    usual = {point: choice for point, field in fields.items() if (choice := field.choose(field.usual))}
    points = [AtPoint(point, choice.best, fields[point].speedup(choice)) for point, choice in usual.items()]
    (field, *_), (chosen, *_) = fields.values(), usual.values()  # an engine has candidates at every point
    chain, tree, choices = (field.choose(family) for family in (field.chains, field.trees, field.aside))
    best = points[0].best
    return Tuned(
        engine=plan.engine.kind, best=best, speedup=points[0].speedup,
        tree_over_chain=field.over(tree, chain) if chain and tree else None,
        best_chain=chain.best if chain else None, best_tree=tree.best if tree else None,
        best_choices=(choices.best, field.speedup(choices)) if choices else None,
        needed_tokens=best.block_efficiency.value / best.speedup.value,
        by_category=field.by_category(chosen), points=points, left_out=left_out,
        candidates=_once(sorted(field.candidates.values(), key=lambda one: -one.speedup.value)),
        prompts=len(field.times.categories),
    )  # fmt: skip


def _candidate(engine: TargetEngine, combination: Combination, row: Any, prompts: int) -> Candidate:
    setting = Setting.of(combination)
    efficiency, speedup = (Interval.of(row, name) for name in ("block_efficiency", "est_speedup"))
    told = engine.told(setting, combination.pair)
    steps, drafted = row["steps"], row["drafted_tokens"] / row["steps"]
    named = (combination.pair.label, efficiency, speedup, combination.identifier)
    return Candidate(told, setting, *named, steps=steps / prompts, drafted=drafted)


def _once(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Without those that are told like an earlier one: a budget may be more than there is to choose from."""
    return list({(one.pair, *one.told.items()): one for one in reversed(candidates)}.values())[::-1]


def _making(combination: Combination, plan: TunePlan) -> Grid:
    """The overrides that make one candidate alone, but for what they say of costs."""
    setting, shape = Setting.of(combination), combination.shape
    made = [f"tree={shape.kind}", f"budget={combination.settings.budget}", f"drafter={combination.pair.drafter.kind}"]
    if isinstance(shape, ExpandRerank):
        made += [f"tree.top_k={setting.top_k}", f"tree.steps={setting.steps}"]
    if setting.threshold:
        made += ["length=hf_confidence", f"length.threshold={setting.threshold}"]
    rest = [text for text in plan.overrides if override_keys([text]) != ["drafter"]]
    return [*(text for text in rest if "cost" not in override_groups([text])), *made]


def _with_choices(tuned: Tuned, plan: TunePlan) -> Tuned:
    """With the trees of what is told as a list of rank paths: fitted on all prompts."""

    def fitted(one: Candidate) -> Candidate:
        if not one.setting.choices:
            return one
        combination = plan.combinations[one.identifier]
        made = [text for text in _making(combination, plan) if not text.startswith("tree=")]
        topology = fit_tree(combination.shape.kind, made, plan.config_dir).topology
        return replace(one, told=plan.engine.with_choices(one.told, topology))

    choices = tuned.best_choices and (fitted(tuned.best_choices[0]), tuned.best_choices[1])
    return replace(tuned, best=fitted(tuned.best), best_choices=choices)
