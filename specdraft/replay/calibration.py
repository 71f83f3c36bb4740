"""Temperatures of a drafter's scores, fitted to the traces of a study: of each half of the prompts on the other one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specdraft.prediction.temperature import Losses, Temperature, fit_temperature
from specdraft.replay.folds import FOLDS
from specdraft.trees.shapes.base import CROSS_FITTED, NestedPlan, Scorer


@dataclass(frozen=True)
class Calibration:
    """What was fitted.

    Attributes:
        everyone: on all prompts.
        folds: of each half: fitted on the others.
        of_prompt: what each prompt is scored with, by its id.
    """

    everyone: Temperature
    folds: list[Temperature]
    of_prompt: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return self.everyone._asdict() | {"of_folds": [fitted.value for fitted in self.folds]}


@dataclass(frozen=True)
class FittedScores:
    """What plans still lack before their trees can be grown, prompt by prompt.

    Attributes:
        temperatures: of each prompt, where a plan's is fitted.
        scorers: of each prompt, where a plan's predictor is.
    """

    temperatures: Mapping[str, float] = field(default_factory=dict)
    scorers: Mapping[str, Scorer] = field(default_factory=dict)

    def complete(self, plan: NestedPlan, name: str) -> NestedPlan:
        """A plan as it is for one prompt."""
        if plan.predictor == CROSS_FITTED:
            return plan.scored_by(self.scorers[name])
        return plan if plan.temperature is not None else plan.at_temperature(self.temperatures[name])


def cross_fit(found: Mapping[str, Losses], names: Sequence[str], fold: np.ndarray) -> Calibration:
    """Fit a temperature on all prompts, and one for each half on the others.

    Args:
        found: by prompt id.
        names: prompt ids.
        fold: `[P]` the half that each of them is in (see `folds`).
    """
    halves = [
        fit_temperature(found[name] for name, other in zip(names, fold, strict=True) if other != number)
        for number in range(FOLDS)
    ]
    of_prompt = {name: halves[own].value for name, own in zip(names, fold.tolist(), strict=True)}
    return Calibration(fit_temperature(found.values()), halves, of_prompt)
