"""Pruned trees: replay is live to the integer, whatever the tree and the policy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from support.drafting import record_all, texts_of
from support.recorded import Recorded, expansions, small, untimed
from support.tallied import tally_of

from specdraft.acceptance import Greedy
from specdraft.bench.curve import CostCurve
from specdraft.decoding.decode import decode
from specdraft.decoding.pruning import Pruning, log_probs
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Drawing, Expansion, GivenTrees
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.prediction.calibration import Platt
from specdraft.prediction.features import columns, roots
from specdraft.prediction.mlp import Mlp
from specdraft.prediction.predictor import About, Predictor
from specdraft.prediction.pruning import ScoredPolicy
from specdraft.prediction.pruning.adaptive import Adaptive
from specdraft.prediction.pruning.levels import Levels
from specdraft.prediction.pruning.ratio import Ratio
from specdraft.prediction.pruning.threshold import Threshold
from specdraft.prediction.rows import tree_features
from specdraft.prediction.survival import cumulative
from specdraft.prediction.tree_walks import depths
from specdraft.replay.best_first import nodes_there, walk
from specdraft.replay.pruned import Scored, one_tree, prune, replay_pruned, union_of
from specdraft.results.metrics import Tally, tally
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes import Plan, StaticPlan
from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.topology import Topology

TEMPERATURE = 0.5
COSTS = CostCurve([1, 2, 33], [0.3, 0.3, 0.5], [1.0, 1.05, 3.2], 1.0, 0.1, 0.1, 1.0, 0.8, 1, "cpu")
TREES: dict[str, Plan] = {
    "chain": Chain().at(5),
    "kary": Kary().at(14),
    "beam": Beam().at(9),
    "best_first": BestFirst().at(12),
    "best_first-threshold": BestFirst(min_prob=0.02).at(12),
}
POLICIES: dict[str, ScoredPolicy] = {
    "threshold": Threshold(min_acceptance_prob=0.06),
    "everything": Threshold(min_acceptance_prob=1.0),
    "nothing": Threshold(min_acceptance_prob=0.0),
    "levels": Levels(keep_per_level=2),
    "ratio": Ratio(pruning_ratio=0.4),
    "adaptive": Adaptive(),
}


def given(pair: Recorded, trees: list[GivenTrees], temperature: float) -> list[Expansion]:
    texts = texts_of(pair.prompts, record_all(pair.target, pair.prompts, pair.ending))
    return [found.expansion for found in ModelDrafter(pair.draft).score(texts, trees, temperature)]


@cache
def scored(tree: str, temperature: float = TEMPERATURE) -> Scored:
    pair, plan = small(), TREES[tree]
    if plan.nested is None:
        assert plan.topology is not None
        union = union_of([p.topology for p in TREES.values() if p.topology is not None])
        scores = given(pair, [GivenTrees.of(union)] * len(pair.prompts), temperature)
        walked = walk(pair.packed, one_tree(plan.topology, union, scores))
        return Scored(walked, walked.depth > 0, walked.log_prob, dynamic=False)
    grown = expansions(pair, BestFirst().at(16))
    walked = walk(pair.packed, grown)
    scores = given(pair, [GivenTrees(some.parent, some.rank) for some in grown], temperature)
    survival = np.concatenate([some.log_prob for some in scores])
    return Scored(walked, nodes_there(walked, plan.nested), survival, dynamic=True)


def live(pair: Recorded, plan: Plan, pruning: Pruning) -> list[Any]:
    verifier, drafter = Verifier(pair.target), ModelDrafter(pair.draft)
    given = (plan, Greedy(), Sampling())
    return [decode(verifier, drafter, *given, p, pair.ending, pruning=pruning).finish() for p in pair.prompts]


def counts(one: Tally) -> Tally:
    return replace(untimed(one), lost_tokens=0, starts=0)


QUICK = {("kary", "threshold"), ("best_first", "threshold"), ("chain", "everything"), ("kary", "levels"),
         ("beam", "ratio"), ("best_first", "ratio"), ("kary", "adaptive"), ("best_first-threshold", "adaptive"),
         }  # fmt: skip
CASES = [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in product(TREES, POLICIES)]


@pytest.mark.parametrize(("tree", "policy"), CASES)
def test_replay_is_live_to_the_integer(tree: str, policy: str) -> None:
    pair, plan = small(), TREES[tree]
    kept = prune(scored(tree), POLICIES[policy], COSTS)
    decoded = live(pair, plan, Pruning(POLICIES[policy], TEMPERATURE, COSTS, plan.dynamic))
    texts = [one.tokens for one in decoded]
    assert texts == [t.tokens.tolist() for t in record_all(pair.target, pair.prompts, pair.ending)]
    rows = scored(tree).walked.prompt
    for prompt, one in enumerate(decoded):
        some = np.array([prompt])
        alone = scored(tree)
        walked = walk(pair.packed.of(some), [_of(alone, prompt)])
        part = Scored(walked, alone.there[rows == prompt], alone.log_survival[rows == prompt], alone.dynamic)
        found = tally_of(replay_pruned(part, kept[rows == prompt], pair.packed.of(some)).counted)
        assert counts(found) == counts(tally(one.first, one.steps, 0, 0, dynamic=True))
    proposed, pruned = (sum(getattr(_tally(one), n) for one in decoded) for n in ("proposed_tokens", "pruned_tokens"))
    if tree in ("kary", "best_first"):
        assert (pruned == 0) == (policy == "nothing")
    assert (pruned == proposed) == (policy == "everything")


def _tally(one: Any) -> Tally:
    return tally(one.first, one.steps, 0, 0, dynamic=True)


def _of(whole: Scored, prompt: int) -> Expansion:
    """What was walked, of one prompt."""
    mine, walked = whole.walked.prompt == prompt, whole.walked
    ranks = np.array([-1, *(path[-1] for path in walked.paths[1:])])
    rank = np.where(walked.depth > 0, ranks[walked.path], -1)
    return Expansion(walked.parent[mine], rank[mine], walked.parent[mine], walked.log_prob[mine])


def made_predictor() -> Predictor:
    groups = ("raw", "temperature", "place", "spread", "parent", "loop")
    rng, width = np.random.default_rng(0), columns(roots(1), groups).shape[-1]
    model = Mlp(groups, *(rng.normal(size=s).astype(np.float32) * 0.3 for s in ((width, 4), (4,), (4,))), 0.0)
    about = About("small", "model", "t", "d", Sampling(), TEMPERATURE, "mlp", "platt", groups, 1, 1)
    return Predictor(model, Platt(1.0, 0.0), about)


def test_a_predictor_says_the_same_live_and_replayed() -> None:
    """What it reads of the text before a node, and of the drafter's distributions, is the same in both."""
    pair, plan, policy, predictor = small(), TREES["kary"], Threshold(min_acceptance_prob=0.3), made_predictor()
    assert plan.topology is not None
    texts = texts_of(pair.prompts, record_all(pair.target, pair.prompts, pair.ending))
    trees = [GivenTrees.of(plan.topology)] * len(texts)
    told = []
    for found, text in zip(ModelDrafter(pair.draft).score(texts, trees, TEMPERATURE, True), texts, strict=True):
        assert found.nodes is not None
        conditional = predictor.log_conditional(tree_features(found.expansion, found.nodes, text))
        told.append(cumulative(found.expansion.parent.astype(int), depths(found.expansion.parent), conditional))
    walked = scored("kary").walked
    whole = Scored(walked, walked.depth > 0, np.concatenate(told), dynamic=False)
    kept = prune(whole, policy, COSTS)
    assert 0 < kept.sum() < kept.size
    counts = replay_pruned(whole, kept, pair.packed).counted.sums
    decoded = [_tally(one) for one in live(pair, plan, Pruning(policy, predictor=predictor))]
    for name in ("steps", "drafted_tokens", "accepted_tokens", "pruned_tokens"):
        assert counts[name].tolist() == [getattr(one, name) for one in decoded]


@pytest.mark.parametrize("tree", ["kary", "best_first"])
def test_what_is_lost_at_each_start(tree: str) -> None:
    """Against each start followed by hand; and what is pruned accepts no more anywhere."""
    pair, whole = small(), scored(tree)
    kept = prune(whole, POLICIES["threshold"], COSTS)
    done = replay_pruned(whole, kept, pair.packed).counted
    lost = np.zeros(len(pair.prompts), dtype=int)
    position = np.arange(len(whole.walked.prompt)) - whole.walked.first[whole.walked.prompt]
    for start, (prompt, at) in enumerate(zip(whole.walked.prompt.tolist(), position.tolist(), strict=True)):
        reach = []
        for there in (whole.there[start], kept[start]):
            node = count = 0
            while True:
                rank = pair.packed.ranks[prompt, at + count + 1]
                below = [
                    n + 1
                    for n in np.flatnonzero(there & (whole.walked.parent[start] == node)).tolist()
                    if whole.walked.paths[whole.walked.path[start, n]][-1] == rank
                ]
                if not below:
                    break
                (node,), count = below, count + 1
            reach.append(count)
        assert reach[0] >= reach[1]
        lost[prompt] += reach[0] - reach[1]
    assert done.sums["lost_tokens"].tolist() == lost.tolist()
    assert lost.sum() > 0
    assert done.sums["starts"].tolist() == pair.packed.last.tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_given_trees_are_scored_as_a_live_run_drafts_them(temperature: float) -> None:
    """Tokens and scores at every start, also where no step starts; starts of best-first trees as they were grown."""
    pair = small()
    topology = Topology.from_paths([(0,), (2,), (0, 1), (0, 1, 0), (2, 0)])
    grown = expansions(pair, BestFirst(max_depth=4).at(9))
    static = given(pair, [GivenTrees.of(topology)] * len(pair.prompts), temperature)
    again = given(pair, [GivenTrees(some.parent, some.rank) for some in grown], 1.0)
    for first, second in zip(grown, again, strict=True):
        for one, other in zip(first, second, strict=True):
            assert np.allclose(np.where(first.parent >= 0, one, 0), np.where(first.parent >= 0, other, 0), atol=1e-6)
    texts = record_all(pair.target, pair.prompts, pair.ending)
    drafter, verifier = ModelDrafter(pair.draft), Verifier(pair.target)
    for prompt, text, found in zip(pair.prompts[:2], texts, static, strict=False):
        for start in range(0, len(text.tokens) - 1, 3):
            before = [*prompt, *text.tokens[:start].tolist()]
            ending = replace(pair.ending, max_new_tokens=1)
            decode(verifier, drafter, Chain().at(1), Greedy(), Sampling(), before, ending)
            drawing = Drawing(keep_logits=True)
            tree = drafter.draft(int(text.tokens[start]), StaticPlan(topology), drawing)
            assert tree.token_list()[1:] == found.token[start].tolist()
            parent, depth = topology.parents[None, 1:], topology.depths[None, 1:]
            own = cumulative(parent, depth, log_probs(tree, temperature)[None])[0]
            assert own.tolist() == pytest.approx(found.log_prob[start].tolist(), abs=1e-6)
