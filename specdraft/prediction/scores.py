"""How good predictions are: calibration error, Brier score, log loss, area under the curve, over prompts.

Rows of one prompt are not independent, so every interval resamples whole prompts: each score is a function of sums by
prompt, and one matrix of weights `[B, P]` (how often each prompt was drawn) gives all replicates at once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtr

from specdraft.results.bounds import students
from specdraft.results.intervals import FEWEST_PROMPTS, Interval

BINS = 20
REPLICATES = 1000
SURE = 1e-12  # a probability is drawn in by so much before its logarithm is taken
SCORES = ("ece", "ece_debiased", "ece_mass", "ece_mass_debiased", "brier", "log_loss", "auroc")
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")  # of equals: half of them count
POSSIBLE = {"auroc": (0.0, 1.0), "difference": (-np.inf, np.inf)}  # of the others: 0 or more


class Predictions(NamedTuple):
    """What was predicted and what happened.

    Attributes:
        predicted: `[R]` probabilities.
        happened: `[R]` 0 or 1, or a probability.
        prompt: `[R]` numbers from 0.
    """

    predicted: np.ndarray
    happened: np.ndarray
    prompt: np.ndarray

    def at(self, mask: np.ndarray) -> Predictions:
        """Some of the rows."""
        return Predictions(*(field[mask] for field in self))


class Bin(NamedTuple):
    """One bar of a reliability diagram: what lay between two edges."""

    low: float
    high: float
    rows: int
    predicted: float
    happened: float


def weights(prompts: int, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """`[1 + B, P]` how often each prompt counts: once in the first row, as often as it was drawn in the others."""
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), replicates)
    return np.concatenate([np.ones((1, prompts)), drawn])


def replicates(predictions: Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Score -> `[1 + B]`, NaN where a replicate has none; of predictions with the same prompts in the same order."""
    width, mass = (_in_bins(predictions, edges, weights) for edges in (even_edges(), mass_edges(predictions.predicted)))
    return {
        "ece": width.plug_in,
        "ece_debiased": width.debiased,
        "ece_mass": mass.plug_in,
        "ece_mass_debiased": mass.debiased,
        "brier": _mean(predictions, _squares(predictions), weights),
        "log_loss": _mean(predictions, -_log_likelihood(predictions), weights),
        "auroc": auroc(predictions, weights),
    }


def interval(name: str, values: np.ndarray, prompts: int) -> Interval:
    """The score and its 95 % interval: Student's t times the standard deviation of the replicates, either side.

    A calibration error is biased upwards, and each replicate's once more, so that the value can lie outside of their
    quantiles; and of few prompts quantiles are too narrow.
    """
    value, drawn = float(values[0]), values[1:][~np.isnan(values[1:])]
    if prompts < FEWEST_PROMPTS or not len(drawn) or np.isnan(value):
        return Interval(value, np.nan, np.nan)
    reach = float(students(prompts - 1) * np.sqrt(prompts / (prompts - 1)) * drawn.std())
    least, most = POSSIBLE.get(name, (0.0, np.inf))
    return Interval(value, max(value - reach, least), min(value + reach, most))


def scores(predictions: Predictions, weights: np.ndarray) -> dict[str, Interval]:
    """Every score with its interval."""
    found, prompts = replicates(predictions, weights), len(np.unique(predictions.prompt))
    return {name: interval(name, found[name], prompts) for name in SCORES}


def difference(after: np.ndarray, before: np.ndarray, prompts: int) -> Interval:
    """`after - before` of one score's replicates, paired: both were drawn with the same weights."""
    return interval("difference", after - before, prompts)


def even_edges(bins: int = BINS) -> np.ndarray:
    """`[bins + 1]` of equal width."""
    return np.linspace(0, 1, bins + 1)


def mass_edges(predicted: np.ndarray, bins: int = BINS) -> np.ndarray:
    """`[n + 1]` edges between which equally many rows lie, n at most `bins`: equal predictions stay together."""
    inner = np.unique(np.quantile(predicted, np.arange(1, bins) / bins))
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < 1)], [1.0]])


def reliability(predictions: Predictions, edges: np.ndarray) -> list[Bin]:
    """The bins that are not empty."""
    which, bins = _bin(predictions.predicted, edges), len(edges) - 1
    rows = np.bincount(which, minlength=bins)
    sums = [np.bincount(which, values, bins) for values in predictions[:2]]
    there = np.flatnonzero(rows)
    return [Bin(edges[i], edges[i + 1], int(rows[i]), sums[0][i] / rows[i], sums[1][i] / rows[i]) for i in there]


def _bin(predicted: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """`[R]` bins are open on the right, the last one closed."""
    return np.clip(np.searchsorted(edges, predicted, "right") - 1, 0, len(edges) - 2)


class Errors(NamedTuple):
    """`[1 + B]` of the expected calibration error: as the sample has it, and less what chance adds to that."""

    plug_in: np.ndarray
    debiased: np.ndarray


def _in_bins(predictions: Predictions, edges: np.ndarray, weights: np.ndarray) -> Errors:
    """`sum over bins of share * |mean predicted - mean happened|`.

    A bin's gap d is estimated with a standard error s (over prompts), and `|d|` is too large by `E|N(d, s)| - |d|`
    on average; that is taken off (Kumar, Liang and Ma 2019, in closed form).
    """
    which, bins = _bin(predictions.predicted, edges), len(edges) - 1
    cell, prompts = predictions.prompt * bins + which, weights.shape[1]
    rows, gap = (
        np.bincount(cell, values, prompts * bins).reshape(prompts, bins)
        for values in (np.ones(len(cell)), predictions.predicted - predictions.happened)
    )
    count, total = weights @ rows, weights @ gap
    there = count > 0
    divided = np.where(there, count, 1)
    distance = np.where(there, total / divided, 0)
    # sum of w * (gap - distance * rows)^2, multiplied out
    squares = weights @ gap**2 - 2 * distance * (weights @ (gap * rows)) + distance**2 * (weights @ rows**2)
    spread = np.sqrt(np.maximum(squares, 0)) / divided
    share = count / count.sum(1, keepdims=True)
    plain = np.abs(distance)
    excess = np.where(spread > 0, _mean_absolute(plain, np.where(spread > 0, spread, 1)) - plain, 0)
    return Errors((share * plain).sum(1), np.maximum((share * (plain - excess)).sum(1), 0))


def _mean_absolute(mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """E|X| of a normal X."""
    ratio = mean / spread
    value: np.ndarray = spread * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + mean * (1 - 2 * ndtr(-ratio))
    return value


def _mean(predictions: Predictions, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    prompts = weights.shape[1]
    sums, rows = (np.bincount(predictions.prompt, each, prompts) for each in (values, np.ones(len(values))))
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = (weights @ sums) / (weights @ rows)
    return mean


def _squares(predictions: Predictions) -> np.ndarray:
    """`(predicted - outcome)^2`, its expected value where the outcome is a probability."""
    squares: np.ndarray = (
        predictions.happened * (1 - predictions.predicted) ** 2 + (1 - predictions.happened) * predictions.predicted**2
    )
    return squares


def _log_likelihood(predictions: Predictions) -> np.ndarray:
    said = np.clip(predictions.predicted, SURE, 1 - SURE)
    likely: np.ndarray = predictions.happened * np.log(said) + (1 - predictions.happened) * np.log1p(-said)
    return likely


def auroc(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """`[1 + B]` P(an accepted row is predicted above one that is not), ties half.

    It is a sum over pairs of rows, so a sum over pairs of prompts: `[P, P]`, counted once for all replicates. A row
    whose outcome is a probability is part accepted, part not.
    """
    prompts = weights.shape[1]
    pairs = np.empty((prompts, prompts))
    accepted = predictions.at(predictions.happened > 0)
    accepted = accepted.at(np.argsort(accepted.predicted))  # places of sorted values are found several times faster
    rejected = predictions.at(predictions.happened < 1)
    rejected = rejected.at(np.lexsort((rejected.predicted, rejected.prompt)))
    ends = np.searchsorted(rejected.prompt, np.arange(prompts + 1))
    for one, (first, last) in enumerate(pairwise(ends)):
        lower = np.concatenate([[0.0], np.cumsum(1 - rejected.happened[first:last])])
        sides = (np.searchsorted(rejected.predicted[first:last], accepted.predicted, side) for side in SIDES)
        below = sum(lower[place] for place in sides) / 2
        pairs[:, one] = np.bincount(accepted.prompt, accepted.happened * below, prompts)
    totals = (accepted.happened, 1 - rejected.happened)
    positive, negative = (
        np.bincount(p, t, prompts) for p, t in zip((accepted.prompt, rejected.prompt), totals, strict=True)
    )
    with np.errstate(invalid="ignore"):
        area: np.ndarray = ((weights @ pairs) * weights).sum(1) / ((weights @ positive) * (weights @ negative))
    return area


class Place(NamedTuple):
    """Nodes of one depth and child rank; -1: of all.

    Attributes:
        rows: how many; `predicted`, `happened`: means.
    """

    depth: int
    rank: int
    rows: int
    predicted: float
    happened: float
    scores: dict[str, Interval]


def by_place(
    predictions: Predictions, depth: np.ndarray, rank: np.ndarray, weights: np.ndarray, fewest: int = 200
) -> list[Place]:
    """Scores of every depth, every child rank, and both together, where there are so many rows."""
    at = [(d, -1) for d in np.unique(depth)] + [(-1, r) for r in np.unique(rank)]
    at += [(d, r) for d in np.unique(depth) for r in np.unique(rank)]
    masks = [((d == -1) | (depth == d)) & ((r == -1) | (rank == r)) for d, r in at]
    return [
        _place(int(d), int(r), predictions.at(mask), weights)
        for (d, r), mask in zip(at, masks, strict=True)
        if mask.sum() >= fewest
    ]


def _place(depth: int, rank: int, some: Predictions, weights: np.ndarray) -> Place:
    means = float(some.predicted.mean()), float(some.happened.mean())
    return Place(depth, rank, len(some.prompt), *means, scores(some, weights))
