"""What is learnt while decoding, against the dense equations and where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from support.recorded import small

from specdraft.acceptance import Greedy
from specdraft.decoding.decode import decode
from specdraft.decoding.fitting import Together
from specdraft.decoding.pruning import Pruning
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.errors import ConfigError
from specdraft.prediction.online import OnlineAcceptance, log_odds
from specdraft.prediction.pruning.threshold import Threshold
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.step import Step


def observed(count: int, slope: float, intercepts: list[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    log_prob, depth = np.log(rng.uniform(0.02, 0.98, count)), rng.integers(1, len(intercepts) + 1, count)
    odds = slope * log_odds(log_prob) + np.array(intercepts)[depth - 1]
    return log_prob, depth, rng.random(count) < 1 / (1 + np.exp(-odds))


def test_it_begins_with_what_the_scores_say() -> None:
    log_prob = np.log(np.array([0.9, 0.5, 0.01]))
    assert np.allclose(OnlineAcceptance().log_conditional(log_prob, np.array([1, 2, 3])), log_prob)
    bounded = OnlineAcceptance().log_conditional(np.array([0.0, -np.inf]), np.array([1, 1]))
    assert np.isfinite(bounded).all() and (bounded <= 0).all()


def test_it_finds_the_curve() -> None:
    online = OnlineAcceptance()
    for part in range(40):
        online.learn(*observed(100, 1.7, [0.5, -0.4, -1.0], part))
    assert online.slope == pytest.approx(1.7, abs=0.1)
    assert online.intercepts.tolist() == pytest.approx([0.5, -0.4, -1.0], abs=0.15)


def test_a_step_solves_the_dense_equations_and_is_damped() -> None:
    log_prob, depth, accepted = observed(30, 1.0, [0.0, -1.0])
    online = OnlineAcceptance()
    online.learn(log_prob, depth, accepted)
    odds = log_odds(log_prob)
    design = np.column_stack([odds, depth == 1, depth == 2]).astype(float)
    said = 1 / (1 + np.exp(-odds))
    hessian = (design * (said * (1 - said))[:, None]).T @ design + 1e-3 * np.eye(3)
    step = np.linalg.solve(hessian, design.T @ (accepted - said))
    seen = np.array([30, (depth == 1).sum(), (depth == 2).sum()])
    expected = np.array([1.0, 0, 0]) + step * seen / (seen + 50)
    assert [online.slope, *online.intercepts] == pytest.approx(expected.tolist())


def test_the_slope_is_never_negative() -> None:
    online = OnlineAcceptance()
    log_prob, depth, accepted = observed(400, 3.0, [0.0])
    for _ in range(10):
        online.learn(log_prob, depth, ~accepted)
    assert online.slope == 0


def steps_of(policy: Threshold, prompt: list[int]) -> list[Step]:
    pair = small()
    verifier, drafter = Verifier(pair.target), ModelDrafter(pair.draft)
    given = (Kary().at(14), Greedy(), Sampling(), prompt, pair.ending)
    return decode(verifier, drafter, *given, pruning=Pruning(policy)).finish().steps


def test_the_text_stays_and_every_prompt_starts_anew() -> None:
    prompt = small().prompts[2]
    plain, online = (Threshold(min_acceptance_prob=0.1, scores="raw", online=on) for on in (False, True))
    first, again, without = (steps_of(policy, prompt) for policy in (online, online, plain))
    pruned = [[step.pruned for step in steps] for steps in (first, again, without)]
    assert pruned[0] == pruned[1] != pruned[2]
    assert pruned[0][0] == pruned[2][0]  # nothing is learnt yet
    texts = [[token for step in steps for token in step.tokens] for steps in (first, without)]
    assert texts[0] == texts[1]


def test_it_cannot_be_replayed() -> None:
    together = Together(Kary(), 4, Greedy(), Sampling(), 64, "replay", pruning=Threshold(online=True))
    why = "with pruning.online=true what is pruned depends on the steps before it; it needs engine=live or engine=auto"
    with pytest.raises(ConfigError, match=why):
        together.refuse()
