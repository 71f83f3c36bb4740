"""Predictors fitted on one half of the prompts and scored on the other: always split by prompt, never by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from specdraft.errors import ConfigError
from specdraft.prediction.calibration import CALIBRATIONS, Calibration, Judged, sigmoid
from specdraft.prediction.predictors import Conditional, Watched, models
from specdraft.prediction.rows import Rows, survival
from specdraft.prediction.scores import SCORES, Predictions, difference, interval, replicates
from specdraft.results.intervals import Interval

FEWEST = 4  # prompts: two to fit on and two to score on; of two, one is watched
WATCHED = 4  # one of so many prompts that are fitted on is kept back, to stop by and to calibrate on


class Fit(NamedTuple):
    """A model, and each calibration on top of it."""

    model: Conditional
    calibrations: dict[str, Calibration]


def fit(kind: str, rows: Rows, prompts: np.ndarray, seed: int = 0, groups: Sequence[str] | None = None) -> Fit:
    """A kind of model on some prompts: most to fit it on, the others to stop by and to calibrate on.

    Args:
        kind: of `predictors.models`.
        rows: of these prompts, maybe of others too.
        prompts: `[m]` numbers.
        seed: of which prompts are kept back, and of what a model draws.
        groups: feature groups; None: those that the kind reads by default.

    Raises:
        ConfigError: there are too few prompts, or all outcomes are equal.
    """
    if len(prompts) < 2:
        raise ConfigError(f"prompts: {len(prompts)} to fit a predictor on; expected 2 or more")
    order = np.random.default_rng(seed).permutation(prompts)
    kept_back, rest = order[::WATCHED], np.delete(order, np.s_[::WATCHED])
    learnt, watched = rows.of(rest), rows.of(kept_back)
    reached, seen = learnt.on_text, watched.on_text
    for part in (reached, seen):
        check_outcomes(part)
    model_class = models()[kind]
    chosen = model_class.default_groups if groups is None else groups
    model = model_class.fit(reached.features, reached.accepted, Watched(seen.features, seen.accepted, seed), chosen)
    judged = judge(model, watched)
    return Fit(model, {name: calibration.fit(judged) for name, calibration in CALIBRATIONS.items()})


def judge(model: Conditional, rows: Rows) -> Judged:
    """What a model says of rows, beside what became of them."""
    logits = model.logits(rows.features).astype(np.float64)
    return Judged(logits, rows.features.depth, rows.parent, rows.reached, rows.accepted)


def check_outcomes(reached: Rows) -> None:
    """Raise `ConfigError` where there is nothing to learn from."""
    outcomes = np.unique(reached.accepted)
    if len(outcomes) > 1:
        return
    what = "no draft node was reached" if not len(outcomes) else f"each is {'accepted' if outcomes[0] else 'rejected'}"
    raise ConfigError(
        f"the outcomes of {len(reached.accepted)} draft nodes are all equal ({what}), so there is nothing to learn; "
        "expected both, from more prompts or a larger max_new_tokens"
    )


@dataclass(frozen=True)
class HeldOut:
    """What was said of every row by what was fitted on the other half of the prompts.

    Attributes:
        model, calibration: kinds.
        conditional: `[R]` P(accepted | reached); `survival`: `[R]` P(accepted).
    """

    model: str
    calibration: str
    conditional: np.ndarray
    survival: np.ndarray

    def predictions(self, rows: Rows, what: str) -> Predictions:
        """`conditional` of reached rows, or `survival` of all."""
        if what == "survival":
            return Predictions(self.survival, rows.accepted, rows.prompt)
        return Predictions(self.conditional, rows.accepted, rows.prompt).at(rows.reached)


def cross_fit(
    kind: str,
    rows: Rows,
    fold: np.ndarray,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    calibrations: Sequence[str] = tuple(CALIBRATIONS),
) -> list[HeldOut]:
    """One kind of model with some calibrations; arguments as `fit`, `fold` `[P]` the half of each prompt.

    Raises:
        ConfigError: as `fit`.
    """
    if len(fold) < FEWEST:
        raise ConfigError(
            f"prompts: {len(fold)}; a predictor is fitted on one half of them and scored on the other: expected "
            f"{FEWEST} or more"
        )
    logits = {name: np.empty(len(rows.prompt)) for name in calibrations}
    for half in np.unique(fold):
        fitted = fit(kind, rows, np.flatnonzero(fold != half), seed, groups)
        mask = fold[rows.prompt] == half
        features = rows.features.at(mask)
        said = fitted.model.logits(features).astype(np.float64)
        for name in calibrations:
            logits[name][mask] = fitted.calibrations[name](said, features.depth)
    return [_held_out(kind, name, said, rows) for name, said in logits.items()]


def _held_out(kind: str, calibration: str, logits: np.ndarray, rows: Rows) -> HeldOut:
    conditional = sigmoid(logits)
    return HeldOut(kind, calibration, conditional, survival(conditional, rows.parent, rows.features.depth))


class Scored(NamedTuple):
    """The scores of one predictor on prompts that it was not fitted on.

    Attributes:
        what: `conditional` or `survival`.
        scores: with intervals; `against_raw`: less those of the drafter's own probability, paired.
    """

    model: str
    calibration: str
    what: str
    scores: Mapping[str, Interval]
    against_raw: Mapping[str, Interval]


def score_all(held_out: Sequence[HeldOut], rows: Rows, weights: np.ndarray) -> list[Scored]:
    """Every one of them; the first is what the others are set against."""
    prompts = len(np.unique(rows.prompt))
    listed = []
    for what in ("conditional", "survival"):
        found = [replicates(one.predictions(rows, what), weights) for one in held_out]
        for one, values in zip(held_out, found, strict=True):
            scores = {name: interval(name, values[name], prompts) for name in SCORES}
            against = {name: difference(values[name], found[0][name], prompts) for name in SCORES}
            listed.append(Scored(one.model, one.calibration, what, scores, against))
    return listed
