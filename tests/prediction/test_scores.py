"""Own scores against scikit-learn's and against plain loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics

from specdraft.prediction.scores import (
    Predictions,
    by_place,
    even_edges,
    interval,
    mass_edges,
    reliability,
    replicates,
    scores,
    weights,
)

PROMPTS = 12


def some(rows: int = 3000, seed: int = 0, soft: bool = False) -> Predictions:
    rng = np.random.default_rng(seed)
    predicted = np.round(rng.beta(0.4, 2, rows), 2)  # many ties, some of them 0 or 1
    happened = rng.random(rows) if soft else (rng.random(rows) < predicted**1.3).astype(float)
    return Predictions(predicted, happened, np.sort(rng.integers(0, PROMPTS, rows)))


def naive_error(predicted: np.ndarray, happened: np.ndarray, edges: np.ndarray) -> float:
    total = 0.0
    for number, (low, high) in enumerate(pairwise(edges)):
        last = number == len(edges) - 2
        inside = [i for i, p in enumerate(predicted) if low <= p < high or (last and p == high)]
        if inside:
            gap = sum(predicted[i] for i in inside) / len(inside) - sum(happened[i] for i in inside) / len(inside)
            total += len(inside) / len(predicted) * abs(gap)
    return total


def test_scores_are_those_of_scikit_learn() -> None:
    said = some()
    found = {name: values[0] for name, values in replicates(said, weights(PROMPTS, 1)).items()}
    inside = np.clip(said.predicted, 1e-12, 1 - 1e-12)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(said.happened, said.predicted), abs=1e-12)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(said.happened, inside), abs=1e-12)
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(said.happened, said.predicted), abs=1e-12)


def test_calibration_error_is_that_of_a_plain_loop() -> None:
    said = some()
    found = {name: values[0] for name, values in replicates(said, weights(PROMPTS, 1)).items()}
    width = np.arange(21) / 20
    assert found["ece"] == pytest.approx(naive_error(*said[:2], width), abs=1e-12)
    assert found["ece_mass"] == pytest.approx(naive_error(*said[:2], mass_edges(said.predicted)), abs=1e-12)
    assert found["ece"] == pytest.approx(sum(b.rows * abs(b.predicted - b.happened) for b in bars(said)) / 3000)


def bars(said: Predictions) -> list[object]:
    return reliability(said, even_edges())  # type: ignore[return-value]


def test_by_hand() -> None:
    """Two bins: 0.25 twice, of which one happened; 0.75 once, which did not."""
    said = Predictions(np.array([0.25, 0.25, 0.75]), np.array([1.0, 0.0, 0.0]), np.array([0, 1, 1]))
    found = {name: values[0] for name, values in replicates(said, weights(2, 1)).items()}
    assert found["ece"] == pytest.approx((2 * 0.25 + 0.75) / 3)
    assert found["brier"] == pytest.approx((0.5625 + 0.0625 + 0.5625) / 3)
    assert found["auroc"] == pytest.approx(0.25)  # a tie and a wrong order


def test_a_replicate_is_the_score_of_its_prompts() -> None:
    """Every score of a replicate is the one of rows that are there as often as their prompt was drawn."""
    for soft in (False, True):
        said, drawn = some(800, soft=soft), weights(PROMPTS, 3, seed=2)
        found = replicates(said, drawn)
        for number in (1, 3):
            times = drawn[number][said.prompt].astype(int)
            again = Predictions(*(np.repeat(field, times) for field in said))
            alone = replicates(again, weights(PROMPTS, 1))
            for name in ("ece", "brier", "log_loss", "auroc"):
                assert found[name][number] == pytest.approx(alone[name][0], abs=1e-12), (name, soft)


def test_debiasing_takes_off_what_chance_adds() -> None:
    """Of calibrated predictions on few rows the plug-in says several per cent; the debiased value far less."""
    plug_in, debiased = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        predicted = rng.random(400)
        said = Predictions(predicted, (rng.random(400) < predicted).astype(float), np.arange(400) // 10)
        found = replicates(said, weights(40, 1))
        plug_in.append(found["ece"][0])
        debiased.append(found["ece_debiased"][0])
    assert np.mean(plug_in) > 0.06
    assert np.mean(debiased) < 0.7 * np.mean(plug_in)


def test_debiasing_leaves_a_real_gap() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.random(20_000)
    said = Predictions(predicted, (rng.random(20_000) < predicted / 2).astype(float), np.arange(20_000) // 500)
    found = scores(said, weights(40, 200))
    assert found["ece_debiased"].value == pytest.approx(0.25, abs=0.01)
    assert found["ece_debiased"].low < 0.25 < found["ece_debiased"].high
    assert found["ece_debiased"].high - found["ece_debiased"].low < 0.03


def test_rows_of_one_prompt_are_not_independent() -> None:
    """The same rows, told to be of one prompt in ten: the interval is wider."""
    rng = np.random.default_rng(1)
    mood = np.repeat(rng.random(20), 50)
    said = Predictions(np.full(1000, 0.8), (rng.random(1000) < mood).astype(float), np.repeat(np.arange(20), 50))
    apart = said._replace(prompt=rng.permutation(said.prompt))
    together, spread_out = (scores(one, weights(20, 300))["brier"] for one in (said, apart))
    assert together.value == pytest.approx(spread_out.value)
    assert together.high - together.low > 3 * (spread_out.high - spread_out.low)


def test_intervals_of_eight_prompts_hold_the_truth() -> None:
    """In about 95 of 100 studies whose prompts differ; quantiles of the replicates hold it in some 87."""
    drawn, held = weights(8, 200), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        happened = (rng.random((8, 40)) < rng.beta(2, 2, (8, 1))).astype(float).reshape(-1)
        said = Predictions(np.full(320, 0.8), happened, np.repeat(np.arange(8), 40))
        brier = interval("brier", replicates(said, drawn)["brier"], 8)
        held += brier.low <= 0.5 * 0.04 + 0.5 * 0.64 <= brier.high
    assert 0.91 * 200 <= held <= 0.985 * 200


def test_too_few_prompts_have_no_interval() -> None:
    values = np.array([0.5, 0.4, 0.6, 0.5])
    assert not interval("brier", values, prompts=4).known
    assert interval("brier", values, prompts=5).known


def test_one_outcome_alone_has_no_area() -> None:
    said = Predictions(np.array([0.2, 0.4]), np.ones(2), np.array([0, 1]))
    assert np.isnan(replicates(said, weights(2, 1))["auroc"]).all()


def test_places_are_depth_rank_and_both() -> None:
    said, rng = some(), np.random.default_rng(3)
    depth, rank = rng.integers(1, 3, 3000), rng.integers(0, 2, 3000)
    found = {(place.depth, place.rank): place for place in by_place(said, depth, rank, weights(PROMPTS, 10))}
    assert set(found) == {(1, -1), (2, -1), (-1, 0), (-1, 1), (1, 0), (1, 1), (2, 0), (2, 1)}
    mask = (depth == 2) & (rank == 1)
    assert found[2, 1].rows == mask.sum()
    assert found[2, 1].happened == pytest.approx(said.happened[mask].mean())
    assert found[2, 1].scores["brier"].value == pytest.approx(
        metrics.brier_score_loss(said.happened[mask], said.predicted[mask]), abs=1e-12
    )
