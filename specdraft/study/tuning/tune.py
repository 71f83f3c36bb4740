"""`specdraft tune`: replay what an engine can be told, and choose on one half of the prompts what is timed on the
other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from specdraft.config import override_keys
from specdraft.errors import ConfigError, did_you_mean
from specdraft.replay.folds import folds
from specdraft.results.best_at_time import Times, fastest, speed_ratio
from specdraft.results.bounds import bounds, ratios_of_sums
from specdraft.results.intervals import Interval
from specdraft.study.combination import Combination
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.progress import Progress
from specdraft.study.refusals import refuse_without_effect
from specdraft.study.run import run_study
from specdraft.study.tuning.engines import CHAINS, ENGINES, TREES, Setting, TargetEngine, length_of, llama_cpp

FEWEST = 10  # prompts: with fewer there is no half to choose on
SPECULATE, DO_NOT, OPEN = "speculate", "do not speculate", "open"
OWN = ("tree", "budget", "engine", "length", "pruning", "batch", "cache", "output", "certify", "report", "experiment",
       "name", "repeats")  # fmt: skip
STEPS = "steps"  # the folder of the chosen one's steps


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


@dataclass(frozen=True)
class Candidate:
    """One way to set the engine.

    Attributes:
        told: the engine's own names.
        speedup: of an estimated text over plain decoding, on all prompts: of many candidates the best one's flatters.
    """

    told: dict[str, Any]
    pair: str
    nodes: int
    depth: int
    block_efficiency: Interval
    speedup: Interval
    identifier: str


@dataclass(frozen=True)
class Tuned:
    """The answer.

    Attributes:
        verdict: `speculate`, `do not speculate`, or `open` where the prompts do not tell.
        best: the fastest candidate on all prompts.
        speedup: of what was chosen on the other half of the prompts, over plain decoding.
        tree_over_chain: speed of the best tree over that of the best chain, likewise; None where there is but one.
        best_chain, best_tree: the fastest of each on all prompts.
        needed_tokens: tokens per step at which the best candidate is as fast as plain decoding.
        needed_acceptance: of each token of a chain of its depth, at which that is so; None of a tree.
        by_category: category -> what is faster there than `best`, beyond the interval, and by how much.
        rates: `[depth]` how probable it is that as many draft tokens are accepted; `conditional` given those before.
        candidates: the fastest first.
    """

    engine: str
    verdict: str
    best: Candidate
    speedup: Interval
    tree_over_chain: Interval | None
    best_chain: Candidate | None
    best_tree: Candidate | None
    needed_tokens: float
    needed_acceptance: float | None
    by_category: dict[str, tuple[Candidate, Interval]]
    rates: list[Interval]
    conditional: list[float]
    candidates: list[Candidate]
    prompts: int
    files: dict[str, str] = field(default_factory=dict)


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
    chosen, rule = ENGINES[engine], _rule(overrides)
    wanted = [CHAINS, TREES] if chosen.trees else [CHAINS]
    plans: list[StudyPlan] = []
    for grid in wanted:
        asked = ["name=tune", "report=false", "engine=replay", *rule, *overrides, *grid]
        try:
            plans.append(plan_study(asked, config_dir))
        except ConfigError as error:
            if grid is CHAINS or not str(error).startswith("no combination is left"):
                raise
    combinations = {c.identifier: c for plan in plans for c in plan.combinations if not c.shape.reference}
    if len({c.pair.spec.name for c in combinations.values()}) > 1:
        raise ConfigError("one pair at a time is tuned; its drafters may be several (drafter=model,ngram)")
    if len({(c.sampling.temperature, c.sampling.top_k, c.sampling.top_p) for c in combinations.values()}) > 1:
        raise ConfigError("one sampling setting at a time is tuned")
    for combination in combinations.values():
        chosen.named(combination.pair)
    if len(plans[0].prompts) < FEWEST:
        raise ConfigError(f"tune needs {FEWEST} prompts at least, half of them to choose on; there are "
                          f"{len(plans[0].prompts)}")  # fmt: skip
    return TunePlan(chosen, plans, combinations, [*rule, *overrides], config_dir)


def _rule(overrides: Sequence[str]) -> list[str]:
    """Under sampling, the rule that both chains and trees take: the draft as a point mass."""
    given = [text.partition("=")[2] for text in overrides if override_keys([text]) == ["sampling.temperature"]]
    sampled = any(value.strip("0.") for value in given) or "sampling=sample" in overrides
    said = any(text.startswith("acceptance") for text in overrides)
    return ["acceptance=topk"] if sampled and not said else []


def run_tune(plan: TunePlan, out: Path, progress: Progress) -> Tuned:
    """Replay all candidates, choose, and replay the chosen one's steps.

    Raises:
        ConfigError: times cannot be estimated from the costs.
        ResultsError: the folder cannot be used.
    """
    for one in plan.plans:
        outcome = run_study(one, out, progress=progress)
    records, summary = outcome.tables["records.csv"], outcome.tables["summary.csv"]
    doubts = [f"{pair}: {why}" for pair, curve in outcome.costs.items() for why in curve.doubts]
    if doubts:
        why = f"times are not reliable: {doubts[0]}"
        raise ConfigError(f"nothing can be tuned: {why}; on a quiet machine, the same with cost.measure=again")
    named = records[records["combination"].isin(plan.combinations)]
    times, rows = Times.estimated(named, ["combination"]), summary.set_index("combination")
    candidates = {name: _candidate(plan.engine, plan.combinations[name], rows.loc[name]) for name in times.names}
    halves = folds(times.categories, plan.plans[0].settings.seed)
    best = fastest(times, halves)
    speedup = speed_ratio(times.plain_s, best.seconds, times.categories)
    chains = [Setting.of(plan.combinations[name]).top_k == 1 for name in times.names]
    by_shape = [times.only(chains), times.only([not chain for chain in chains])]
    chain, tree = (fastest(part, halves) if part.names else None for part in by_shape)
    over = speed_ratio(chain.seconds, tree.seconds, times.categories) if chain and tree else None
    found = candidates[best.name]
    needed = found.block_efficiency.value / found.speedup.value
    rates = _rates(plan, found, out, progress)
    tuned = Tuned(
        plan.engine.kind, _verdict(speedup), found, speedup, over,
        candidates[chain.name] if chain else None, candidates[tree.name] if tree else None,
        needed, _needed_acceptance(needed, found.depth) if found.nodes == found.depth else None,
        _by_category(times, halves, best.name, candidates), rates, _conditional(rates),
        _once(sorted(candidates.values(), key=lambda one: -one.speedup.value)), len(times.categories),
    )  # fmt: skip
    tuned.files.update(_files(plan.engine, tuned))
    return tuned


def _candidate(engine: TargetEngine, combination: Combination, row: Any) -> Candidate:
    setting = Setting.of(combination)
    told = engine.told(setting, combination.pair)
    efficiency, speedup = (Interval.of(row, name) for name in ("block_efficiency", "est_speedup"))
    named = (told, combination.pair.label, setting.nodes, setting.steps)
    return Candidate(*named, efficiency, speedup, combination.identifier)


def _once(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Without those that are told like an earlier one: a budget may be more than there is to choose from."""
    return list({tuple(one.told.items()): one for one in reversed(candidates)}.values())[::-1]


def _verdict(speedup: Interval) -> str:
    return SPECULATE if speedup.low > 1 else DO_NOT if speedup.high < 1 else OPEN


def _needed_acceptance(tokens: float, depth: int) -> float | None:
    """The rate at which a chain of this depth yields so many tokens a step, each token accepted independently
    (Leviathan et al. 2023, equation 1); None where no rate does."""
    if not 1 <= tokens <= depth + 1:
        return None
    grid = np.linspace(0, 1, 10_001)
    yields = sum(grid**power for power in range(depth + 1))
    return float(grid[np.searchsorted(yields, tokens)])


def _by_category(
    times: Times, halves: np.ndarray, best: str, candidates: Mapping[str, Candidate]
) -> dict[str, tuple[Candidate, Interval]]:
    """Where another candidate is faster than the best of all, beyond the interval."""
    found = {}
    kinds = np.asarray(times.categories)
    usual = times.seconds[list(times.names).index(best)]
    for kind in dict.fromkeys(times.categories):
        here = kinds == kind
        if here.sum() < FEWEST:
            continue
        own = fastest(times._replace(seconds=times.seconds[:, here]), halves[here])
        ratio = speed_ratio(usual[here], own.seconds, kinds[here].tolist())
        if ratio.known and ratio.low > 1:
            found[str(kind)] = (candidates[own.name], ratio)
    return found


def _rates(plan: TunePlan, best: Candidate, out: Path, progress: Progress) -> list[Interval]:
    """How probable it is that a step accepts 1, 2, ... draft tokens, from the chosen candidate's steps; empty where
    these are not known one by one (under sampling, replay has expected values)."""
    combination = plan.combinations[best.identifier]
    if not combination.sampling.greedy:
        return []
    shape = combination.shape
    tree = [f"tree={shape.kind}", f"budget={combination.settings.budget}", f"drafter={combination.pair.drafter.kind}"]
    setting = Setting.of(combination)
    tree += [f"tree.top_k={setting.top_k}", f"tree.steps={setting.steps}"] if setting.top_k > 1 else []
    rest = [text for text in plan.overrides if override_keys([text]) != ["drafter"]]
    steps_too = ["name=tune-steps", "report=false", "engine=replay", "output.steps=true", *rest, *tree]
    study = run_study(plan_study(steps_too, plan.config_dir), out / STEPS, progress=progress)
    steps = study.tables["steps.csv"]
    steps = steps[steps["combination"] == best.identifier]
    categories = study.tables["records.csv"].drop_duplicates("prompt_id").set_index("prompt_id")["category"].astype(str)
    total = steps.groupby("prompt_id", observed=True).size()
    kinds = np.unique(categories[total.index].to_numpy(str), return_inverse=True)[1]
    rates = []
    for depth in range(1, best.depth + 1):
        accepted = (steps["accepted_tokens"] >= depth).groupby(steps["prompt_id"], observed=True)
        reached = accepted.sum()[total.index].to_numpy(float)
        ratio = ratios_of_sums(reached[None], total.to_numpy(float)[None])
        low, high = bounds(ratio, kinds, (0.0, 1.0))[0]
        rates.append(Interval(float(ratio.estimates[0]), float(low), float(high)))
    return rates


def _conditional(rates: Sequence[Interval]) -> list[float]:
    values = [1.0, *(rate.value for rate in rates)]
    return [after / before if before else float("nan") for before, after in pairwise(values)]


def _files(engine: TargetEngine, tuned: Tuned) -> dict[str, str]:
    """Name -> text: the configuration, unless nothing should be drafted, and synthetic acceptance."""
    files = dict([engine.file(tuned.best.told)]) if tuned.verdict != DO_NOT else {}
    if not tuned.rates:
        return files
    values = [rate.value for rate in tuned.rates]
    lines = ["depth,unconditional,low,high,conditional"]
    for depth, (rate, given) in enumerate(zip(tuned.rates, tuned.conditional, strict=True), start=1):
        lines.append(f"{depth},{rate.value:.6f},{rate.low:.6f},{rate.high:.6f},{given:.6f}")
    files["acceptance-rates.csv"] = "\n".join(lines) + "\n"
    synthetic = {name: one.synthetic(tuned.best.told | {"num_speculative_tokens": len(values)}, values)
                 for name, one in ENGINES.items() if name != "hf"}  # fmt: skip
    spelled = [f"# tokens per step: {length_of(values):.4f}, the bonus token included"]
    for name, one in synthetic.items():
        text = (f"{key}={value}" for key, value in one.items() if key.isupper() or key.startswith(("syn", "rejection")))
        spelled.append(f"{name}: " + " ".join(text))
    spelled.append(f"llama.cpp: {llama_cpp(values)}")
    files["synthetic-acceptance.txt"] = "\n".join(spelled) + "\n"
    return files
