"""Models and calibrations on outcomes whose law is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from specdraft.errors import ConfigError
from specdraft.prediction import calibration as calibrations
from specdraft.prediction.ablation import ablate
from specdraft.prediction.calibration import Judged, Sequential, error, sigmoid
from specdraft.prediction.cross_fitting import cross_fit, fit
from specdraft.prediction.features import Features, Siblings, children, columns, log_odds, roots
from specdraft.prediction.mlp import Mlp
from specdraft.prediction.predictors import ENOUGH, IsotonicByRank, Logistic, Watched, models, rising_curve
from specdraft.prediction.rows import Rows
from specdraft.prediction.scores import weights

PROMPTS = 12


def made(rows: int = 6000, seed: int = 0, slope: float = 1.5, by_rank: float = -0.7) -> Rows:
    """Rows of depth 1 that are accepted with log-odds `slope * log-odds(q) + by_rank * rank + 1`."""
    rng = np.random.default_rng(seed)
    log_prob = np.log(rng.beta(0.6, 2.0, rows))
    rank = rng.integers(0, 4, rows)
    truth = sigmoid(slope * log_odds(log_prob) + by_rank * rank + 1)
    zero = np.zeros(rows)
    best = np.maximum(log_prob, np.log(0.3))
    features = Features(
        np.ones(rows, dtype=int), rank, log_prob, log_prob, log_prob, rng.random(rows) * 3, best, best - 1,
        np.full(rows, -1), zero, zero, zero, zero, rng.random(rows) < 0.2, np.zeros((rows, 0)),
    )  # fmt: skip
    accepted = (rng.random(rows) < truth).astype(float)
    prompt = np.sort(rng.integers(0, PROMPTS, rows))
    return Rows(prompt, prompt * 0, np.full(rows, -1), features, np.ones(rows, dtype=bool), accepted)


def watched(rows: Rows) -> Watched:
    return Watched(rows.features, rows.accepted)


def test_logistic_regression_is_scikit_learns_on_unscaled_columns() -> None:
    rows, groups = made(), ("raw", "place")
    model = Logistic.fit(rows.features, rows.accepted, watched(rows), groups)
    table = columns(rows.features, groups).astype(float)
    scale = np.where(table.std(0) > 1e-6, table.std(0), 1)
    scaled = (table - table.mean(0)) / scale
    other = LogisticRegression(C=10.0, max_iter=300, tol=1e-5).fit(scaled, rows.accepted)
    assert sigmoid(model.logits(rows.features)) == pytest.approx(other.predict_proba(scaled)[:, 1], abs=1e-4)


def test_a_probability_as_outcome_is_that_share_of_rows() -> None:
    rows, count = made(3000), 3000
    soft = np.where(rows.accepted > 0, 0.75, 0.25)
    model = Logistic.fit(rows.features, soft, watched(rows), ("raw",))
    again = np.repeat(np.arange(count), 4)
    hard = (np.tile(np.arange(4), count) < np.repeat(soft * 4, 4)).astype(float)
    other = Logistic.fit(rows.features.at(again), hard, watched(rows), ("raw",))
    said, wanted = (sigmoid(one.logits(rows.features)) for one in (model, other))
    assert said == pytest.approx(wanted, abs=0.01)  # the penalty weighs less beside four times the rows


@pytest.mark.parametrize("kind", ["logistic", "isotonic", "mlp"])
def test_what_is_fitted_comes_close_to_the_law(kind: str) -> None:
    rows, other = made(), made(seed=1)
    groups = models()[kind].default_groups
    model = models()[kind].fit(rows.features, rows.accepted, watched(other), groups)
    raw = models()["raw"]().logits(other.features)
    truth = sigmoid(1.5 * log_odds(other.features.log_prob) - 0.7 * other.features.rank + 1)
    wrong, before = (np.abs(sigmoid(said) - truth).mean() for said in (model.logits(other.features), raw))
    assert wrong < 0.03
    assert before > 0.08


def test_a_network_is_what_torch_says() -> None:
    rows = made(2000)
    model = Mlp.fit(rows.features, rows.accepted, watched(rows), Mlp.default_groups)
    table = torch.from_numpy(columns(rows.features, model.groups))
    hidden = torch.nn.functional.silu(table @ torch.from_numpy(model.hidden) + torch.from_numpy(model.hidden_bias))
    said = (hidden @ torch.from_numpy(model.out) + model.out_bias).clip(-14, 14).numpy()
    assert model.logits(rows.features) == pytest.approx(said, abs=1e-4)


def test_the_same_seed_makes_the_same_network() -> None:
    rows = made(1500)
    one, two, other = (
        Mlp.fit(rows.features, rows.accepted, replace(watched(rows), seed=seed), ("raw",)) for seed in (0, 0, 1)
    )
    assert np.array_equal(one.hidden, two.hidden)
    assert not np.array_equal(one.hidden, other.hidden)


def test_isotonic_curves_rise_and_rare_ranks_share_one() -> None:
    rows = made()
    rank = np.where(np.arange(6000) < 6000 - ENOUGH // 2, 0, 7)
    features = rows.features._replace(rank=rank)
    model = IsotonicByRank.fit(features, rows.accepted, watched(rows), ())
    assert model.own[0] == 0
    assert set(model.own[1:]) == {1}  # rank 7 has too few rows of its own, the others none
    said = model.logits(features)[rank == 0]
    order = np.argsort(features.log_prob[rank == 0])
    assert (np.diff(said[order]) >= 0).all()


def test_a_rising_curve_of_equal_outcomes_is_flat() -> None:
    at, curve = rising_curve(np.array([-1.0, 0.0, 1.0]), np.ones(3))
    assert np.isfinite(curve).all()
    assert (np.interp([-5, 5], at, curve) == curve[0]).all()


def chained(rows: int = 40_000, depth: int = 3) -> Judged:
    """Chains of three nodes whose log-odds are too large by 2, 0.5 and 1.25 at the three depths."""
    rng = np.random.default_rng(0)
    true = rng.normal(0.5, 1.5, (rows, depth))
    accepted = np.cumprod(rng.random((rows, depth)) < sigmoid(true), 1)
    reached = np.concatenate([np.ones((rows, 1)), accepted[:, :-1]], 1) > 0
    number = np.arange(rows * depth).reshape(rows, depth)
    parent = np.concatenate([np.full((rows, 1), -1), number[:, :-1]], 1)
    said = true * np.array([2.0, 0.5, 1.25])
    levels = np.broadcast_to(np.arange(1, depth + 1), (rows, depth))
    return Judged(*(values.reshape(-1) for values in (said, levels, parent, reached, accepted.astype(float))))


def test_sequential_scaling_finds_known_temperatures() -> None:
    """Within a step of its grid, whose neighbours differ by a factor of 1.122."""
    found = Sequential.fit(chained()).temperatures
    assert np.abs(np.log(found[:3] / np.array([2.0, 0.5, 1.25]))).max() < np.log(1.13)
    assert (found[3:] == 1).all()


def test_one_temperature_and_a_line_are_found() -> None:
    judged = chained()
    first = Judged(*(field[judged.depth == 1] for field in judged))
    scaled = calibrations.TemperatureScaling.fit(first)
    assert scaled.temperature == pytest.approx(2.0, rel=0.05)
    moved = calibrations.Platt.fit(first._replace(logits=first.logits + 3))
    assert (moved.slope, moved.intercept) == (pytest.approx(0.5, rel=0.05), pytest.approx(-1.5, abs=0.1))


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic", "sequential"])
def test_calibration_lowers_the_error_on_rows_that_it_did_not_see(kind: str) -> None:
    judged = chained()
    half = len(judged.logits) // 2
    seen, unseen = (Judged(*(field[some] for field in judged)) for some in (slice(half), slice(half, None)))
    unseen = unseen._replace(parent=np.where(unseen.parent >= 0, unseen.parent - half, -1))
    curve = calibrations.CALIBRATIONS[kind].fit(seen)
    there = unseen.reached & (unseen.depth == 1)
    said = [sigmoid(logits[there]) for logits in (unseen.logits, curve(unseen.logits, unseen.depth))]
    before, after = (error(one, unseen.accepted[there]) for one in said)
    assert after < before * 0.75


def test_children_of_a_live_batch_have_the_features_of_rows() -> None:
    """Two levels, in the form that a growing tree asks in."""
    rng = np.random.default_rng(0)

    def level(nodes: int) -> Siblings:
        probs = np.sort(rng.dirichlet(np.ones(3) * 0.5, nodes))[:, ::-1]
        return Siblings(np.log(probs), np.log(probs), rng.random(nodes), np.log(probs[:, 1]))

    first = level(1)
    top = children(roots(1), first)
    chosen = top.at((np.array([0, 0]), np.array([0, 2])))
    second = level(2)
    below = children(chosen, second)
    assert below.depth.tolist() == [[2] * 3] * 2
    assert below.rank.tolist() == [[0, 1, 2]] * 2
    assert below.parent_rank.tolist() == [[0] * 3, [2] * 3]
    assert below.path == pytest.approx(first.log_probs[0, [0, 2]][:, None] + second.log_probs)
    assert below.best == pytest.approx(np.broadcast_to(second.log_probs[:, :1], (2, 3)))
    assert below.parent_log_prob == pytest.approx(np.broadcast_to(first.log_probs[0, [[0], [2]]], (2, 3)))
    assert below.parent_entropy == pytest.approx(np.full((2, 3), first.entropy[0]))
    assert below.parent_second == pytest.approx(np.full((2, 3), first.second[0]))
    assert (top.parent_rank == -1).all()
    assert columns(below, ("raw", "temperature", "place", "spread", "parent", "loop", "extra")).shape == (2, 3, 38)


def test_one_half_is_said_by_what_was_fitted_on_the_other() -> None:
    """The halves follow opposite laws, so whoever was fitted on its own half would do well."""
    rows, fold = made(), np.arange(PROMPTS) % 2
    mine = fold[rows.prompt] == 0
    accepted = np.where(mine, rows.features.rank < 2, rows.features.rank >= 2).astype(float)
    (said,) = cross_fit("logistic", rows._replace(accepted=accepted), fold, groups=("place",), calibrations=["none"])
    assert said.conditional[accepted == 1].max() < 0.1
    assert said.conditional[accepted == 0].min() > 0.9


def test_groups_that_hold_nothing_add_nothing() -> None:
    """Outcomes depend on the draft probability and the child rank; the loop flag is noise."""
    rows, fold = made(), np.arange(PROMPTS) % 2
    steps = {step.added: step for step in ablate(rows, fold, weights(PROMPTS, 200))}
    assert list(steps) == ["raw", "fitted", "place", "spread", "parent", "loop"]
    assert steps["raw"].says == ""
    assert steps["fitted"].says == steps["place"].says == "adds"
    assert steps["place"].gained["log_loss"].high < 0 < steps["place"].gained["auroc"].low
    assert steps["loop"].says == "adds nothing"


def test_nothing_to_learn_from_is_one_line() -> None:
    rows, everyone = made(200), np.arange(PROMPTS)
    same = rows._replace(accepted=np.zeros(200))
    with pytest.raises(ConfigError, match=r"are all equal \(each is rejected\)"):
        fit("logistic", same, everyone)
    with pytest.raises(ConfigError, match=r"are all equal \(no draft node was reached\)"):
        fit("logistic", rows.of(np.array([99])), everyone)
    with pytest.raises(ConfigError, match="prompts: 1 to fit a predictor on; expected 2 or more"):
        fit("logistic", rows, everyone[:1])
    with pytest.raises(ConfigError, match=r"prompts: 3; .* expected 4 or more"):
        cross_fit("logistic", rows, np.array([0, 1, 0]))
