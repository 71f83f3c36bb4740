"""What pruning loses, and what it is held against."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from support.recorded import expansions, small

from specdraft.prediction.pruning import StepCosts
from specdraft.prediction.pruning.threshold import Threshold
from specdraft.replay.best_first import accepted_tokens, walk
from specdraft.replay.pruned import Scored, replay_pruned
from specdraft.replay.regret import as_many, at_random, best_rate, in_hindsight, regret
from specdraft.trees.shapes.best_first import BestFirst


@pytest.fixture(scope="module")
def scored() -> Scored:
    walked = walk(small().packed, expansions(small(), BestFirst().at(16)))
    return Scored(walked, walked.depth > 0, walked.log_prob, dynamic=True)


def costs(scored: Scored) -> StepCosts:
    return StepCosts(np.full(len(scored.there), 0.5), 1 + 0.1 * np.arange(17.0))


def test_it_is_what_replay_counts(scored: Scored) -> None:
    kept = Threshold(min_acceptance_prob=0.1).keep(scored.drafted)
    sums = replay_pruned(scored, kept, small().packed).counted.sums
    found = regret(scored, kept, costs(scored))
    assert found.tokens == sums["lost_tokens"].sum() / sums["starts"].sum() > 0
    assert found.nodes == kept.sum() / len(kept)
    assert regret(scored, scored.there, costs(scored)).tokens == 0


def test_who_knows_the_text_loses_nothing(scored: Scored) -> None:
    kept = in_hindsight(scored)
    accepted = accepted_tokens(scored.walked, scored.there)
    assert kept.sum(1).tolist() == accepted.tolist() == accepted_tokens(scored.walked, kept).tolist()
    free = StepCosts(np.full(len(kept), 1.0), np.ones(17))
    assert regret(scored, kept, free).goodput == pytest.approx(0)
    assert regret(scored, kept, costs(scored)).goodput >= 0 < regret(scored, scored.there, costs(scored)).goodput


def test_at_random_is_closed_as_large_as_asked_for_and_worse(scored: Scored) -> None:
    kept = Threshold(min_acceptance_prob=0.1).keep(scored.drafted)
    lost = []
    for seed in range(3):
        drawn = at_random(scored, kept.sum(1), np.random.default_rng(seed))
        assert drawn.sum(1).tolist() == kept.sum(1).tolist()
        row, place = np.nonzero(drawn)
        above = scored.walked.parent[row, place]
        assert drawn[row[above > 0], above[above > 0] - 1].all()
        lost.append(regret(scored, drawn, costs(scored)).tokens)
    assert len(set(lost)) > 1
    assert min(lost) > regret(scored, kept, costs(scored)).tokens


@pytest.mark.parametrize("total", [0, 1, 17, 300])
def test_as_many_nodes_by_other_scores(scored: Scored, total: int) -> None:
    kept = as_many(scored, scored.log_survival, total)
    assert kept.sum() == total
    assert scored.log_survival[kept].min(initial=0) >= scored.log_survival[scored.there & ~kept].max()
    everything = as_many(scored, scored.log_survival, int(scored.there.sum()) + 5)
    assert (everything == scored.there).all()


def test_the_best_rate_against_every_choice() -> None:
    accepted = np.array([0, 2, 1])
    step = StepCosts(np.array([0.3, 0.1, 0.4]), np.array([1.0, 1.3, 2.2]))
    every = product(*(range(most + 1) for most in accepted.tolist()))
    rates = [
        sum(1 + n for n in chosen) / sum(step.fixed_s[i] + step.verify_s[n] for i, n in enumerate(chosen))
        for chosen in every
    ]
    assert best_rate(accepted, step) == pytest.approx(max(rates))
