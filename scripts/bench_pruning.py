"""What pruning costs: thresholds and ratios beside random pruning, raw probabilities and the oracle.

    python scripts/bench_pruning.py                     # the bundled pairs -> results/prediction/pruning.csv
    python scripts/bench_pruning.py zoo-tiny --prompts 10 --out /tmp/pruning.csv

Greedy, 64 new tokens, the trees of 16 nodes and Medusa's 63; temperatures and predictors are fitted on one half of the
prompts and used on the other one. Every reference sends as many nodes as the policy that it stands beside: also the
predictor, whose trees are those of the calibrated scores. One threshold more is the one that leaves out a quarter of
the nodes. Costs are this machine's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from specdraft.bench.curve import CostCurve
from specdraft.bench.kept import pair_costs
from specdraft.config import Settings
from specdraft.drafters.pair import load_pair
from specdraft.prediction.pruning.adaptive import Adaptive
from specdraft.prediction.pruning.ratio import Ratio
from specdraft.prediction.pruning.threshold import Threshold
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.replay.best_first import nodes_there, walk
from specdraft.replay.calibration import FittedScores
from specdraft.replay.fit import resolve
from specdraft.replay.folds import halves
from specdraft.replay.pruned import Scored, prune, replay_pruned
from specdraft.replay.regret import as_many, at_random, in_hindsight, regret
from specdraft.replay.replayer import dynamic_trees, limits
from specdraft.replay.scores import TreeScores, score_trees
from specdraft.results.bounds import bounds, bounds_of_differences, ratios_of_sums
from specdraft.results.files import to_csv, write_atomically
from specdraft.sampling.distribution import Sampling
from specdraft.study.engines.predictors import cross_fit_predictors
from specdraft.study.recorded import RecordedTexts, record_texts
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import Shape, registry

PAIRS = ("zoo", "zoo-distilled", "zoo-tiny")
TREES: dict[str, dict[str, Any]] = {
    "kary": {},
    "sequoia": {},
    "published": {"name": "medusa/mc_sim_7b_63"},
    "best_first": {"scores": "calibrated"},
}
BUDGET = 16
THRESHOLDS = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
RATIOS = (0.25, 0.5)
OTHERS = ("raw", "predictor")  # scores beside the calibrated ones
OUT = Path(__file__).parents[1] / "results" / "prediction" / "pruning.csv"


class Tree(NamedTuple):
    """The drafted trees of one half of the prompts, or of all, by every kind of scores."""

    prompts: np.ndarray
    packed: PackedRanks
    calibrated: Scored
    raw: Scored
    predictor: Scored


def drafted_trees(texts: RecordedTexts, shape: Shape, scores: dict[str, TreeScores], grown: Any) -> Iterator[Tree]:
    fold = halves(texts.prompts, texts.seed)
    if shape.fits_scores:
        plan = shape.at(BUDGET).nested
        assert plan is not None
        everyone = np.arange(len(texts.prompts))
        walked = walk(texts.ranks, [grown[limits(plan)].of(name) for name in texts.names])
        there = nodes_there(walked, plan)
        survival = {kind: some.of_nested(limits(plan), texts.names) for kind, some in scores.items()}
        by = {
            kind: Scored(walked, there, np.concatenate([one.log_prob for one in found]), dynamic=True)
            for kind, found in survival.items()
        }
        yield Tree(everyone, texts.ranks, **by)
        return
    for some, prompts in resolve(shape, BUDGET, texts.ranks, fold):
        assert some.topology is not None
        packed, by = texts.ranks.of(prompts), {}
        for kind, found in scores.items():
            walked = walk(packed, found.of_static(some.topology, [texts.names[place] for place in prompts]))
            by[kind] = Scored(walked, walked.depth > 0, walked.log_prob, dynamic=False)
        yield Tree(prompts, packed, **by)


class Way(NamedTuple):
    """One way to prune: of each part of the prompts the nodes that are sent."""

    policy: str
    scores: str
    parameter: float
    kept: list[np.ndarray]


def ways(trees: list[Tree], costs: CostCurve) -> Iterator[Way]:
    """Policies, and beside each what else sends as many nodes."""
    yield Way("none", "", np.nan, [tree.calibrated.there for tree in trees])
    yield Way("oracle", "", np.nan, [in_hindsight(tree.calibrated) for tree in trees])
    for kind in ("calibrated", *OTHERS):
        kept = [prune(getattr(tree, kind), Adaptive(), costs) for tree in trees]
        yield Way("adaptive", kind, np.nan, kept)
    thresholds = sorted([*THRESHOLDS, quarter_less(trees)])
    policies = [(Threshold(min_acceptance_prob=tau), tau) for tau in thresholds]
    for policy, parameter in [*policies, *((Ratio(pruning_ratio=share), share) for share in RATIOS)]:
        rng = np.random.default_rng(0)
        kept = [prune(tree.calibrated, policy, costs) for tree in trees]
        yield Way(policy.kind, "calibrated", parameter, kept)
        for kind in OTHERS:
            of_kind = [getattr(tree, kind) for tree in trees]
            if isinstance(policy, Ratio):
                other = [prune(scored, policy, costs) for scored in of_kind]
            else:
                alike = zip(of_kind, kept, strict=True)
                other = [as_many(scored, scored.log_survival, int(some.sum())) for scored, some in alike]
            yield Way(policy.kind, kind, parameter, other)
        random = [at_random(t.calibrated, some.sum(1), rng) for t, some in zip(trees, kept, strict=True)]
        yield Way(policy.kind, "random", parameter, random)


def quarter_less(trees: list[Tree]) -> float:
    """The threshold that leaves out a quarter of all nodes."""
    survival = np.concatenate([tree.calibrated.log_survival[tree.calibrated.there] for tree in trees])
    return float(np.exp(np.quantile(survival, 0.25)))


class Sums(NamedTuple):
    """`[P]` each prompt's, in the order of all prompts."""

    steps: np.ndarray
    accepted: np.ndarray
    drafted: np.ndarray


def sums_of(trees: list[Tree], kept: list[np.ndarray]) -> Sums:
    total = {name: np.zeros(sum(len(tree.prompts) for tree in trees)) for name in ("steps", "accepted_tokens",
                                                                                  "drafted_tokens")}  # fmt: skip
    for tree, some in zip(trees, kept, strict=True):
        counted = replay_pruned(tree.calibrated, some, tree.packed).counted
        for name, column in total.items():
            column[tree.prompts] = counted.sums[name]
    return Sums(*total.values())


def measure(trees: list[Tree], costs: CostCurve, categories: np.ndarray) -> Iterator[dict[str, Any]]:
    whole: Any = None
    steps = [costs.of_steps(t.calibrated.drafted.fed, t.calibrated.there.shape[1], t.calibrated.dynamic) for t in trees]
    for way in ways(trees, costs):
        done = sums_of(trees, way.kept)
        length = ratios_of_sums(done.accepted[None], done.steps[None])
        whole = whole or (done, length, bounds(length, categories)[0])
        difference = bounds_of_differences(length, whole[1], categories)[0]
        low, high = bounds(length, categories)[0]
        lost = [regret(t.calibrated, kept, cost) for t, kept, cost in zip(trees, way.kept, steps, strict=True)]
        starts = np.array([len(kept) for kept in way.kept])
        value = float(length.estimates[0])
        yield {
            "policy": way.policy,
            "scores": way.scores,
            "parameter": way.parameter,
            "nodes_per_step": done.drafted.sum() / done.steps.sum(),
            "nodes_per_start": float(np.average([one.nodes for one in lost], weights=starts)),
            "acceptance_length": value,
            "acceptance_length_lo": low,
            "acceptance_length_hi": high,
            "difference": value - float(whole[1].estimates[0]),
            "difference_lo": difference[0],
            "difference_hi": difference[1],
            "within_whole": bool(value >= whole[2][0]),
            "regret_tokens": float(np.average([one.tokens for one in lost], weights=starts)),
            "goodput_regret": float(np.average([one.goodput for one in lost], weights=starts)),
        }


def of_pair(name: str, prompts: int | None) -> Iterator[dict[str, Any]]:
    pair, spec = load_pair(name), PromptSpec(limit=prompts)
    shapes: dict[str, Shape] = {kind: registry()[kind](**how) for kind, how in TREES.items()}
    depth = max(shape.limits(BUDGET).depth for shape in shapes.values())
    listed = load_prompts(spec)
    texts = record_texts(pair, listed, spec.chat_template, Sampling(), Settings(), depth)
    calibration = texts.calibrate()
    calibrated = calibration.of_prompt
    given = (pair, texts.prompt_ids, texts.traces)
    best_first = [shape.at(BUDGET) for shape in shapes.values() if shape.fits_scores]
    grown = dynamic_trees(*given, best_first, texts.store, texts.recorded, fitted=FittedScores(calibrated))
    fold = halves(listed, texts.seed)
    static = [
        some.plan.topology
        for shape in shapes.values()
        if not shape.fits_scores
        for some in resolve(shape, BUDGET, texts.ranks, fold)
    ]
    predictors = cross_fit_predictors(
        pair, listed, *given[1:], Sampling(), calibration, texts.seed, texts.store, texts.recorded
    )
    temperatures = {"calibrated": calibrated, "raw": dict.fromkeys(texts.names, 1.0), "predictor": calibrated}
    topologies = [topology for topology in static if topology is not None]
    scores = {
        kind: score_trees(
            *given, topologies, grown, of_prompt, texts.store, predictors=predictors if kind == "predictor" else None
        )
        for kind, of_prompt in temperatures.items()
    }
    largest = 1 + max(shape.limits(BUDGET).nodes for shape in shapes.values())
    costs = pair_costs(pair, texts.store, largest)
    categories = pd.factorize(pd.Series([prompt.category for prompt in listed]))[0]
    for kind, shape in shapes.items():
        trees = list(drafted_trees(texts, shape, scores, grown))
        for row in measure(trees, costs, categories):
            yield {"pair": name, "tree": shape.label, "nodes": shape.limits(BUDGET).nodes} | row
        print(f"{name} {kind}: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=PAIRS)
    parser.add_argument("--prompts", type=int, help="of each pair; all if left out")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    table = pd.DataFrame([row for pair in arguments.pairs for row in of_pair(pair, arguments.prompts)])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, to_csv(table))
    shown = ["pair", "tree", "policy", "scores", "parameter", "nodes_per_step", "acceptance_length", "regret_tokens"]
    print(table[shown].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
