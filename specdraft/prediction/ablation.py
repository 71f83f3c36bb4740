"""What each group of features adds to a predictor, on prompts that it was not fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np

from specdraft.prediction.cross_fitting import cross_fit
from specdraft.prediction.features import GROUPS
from specdraft.prediction.rows import Rows
from specdraft.prediction.scores import difference, interval, replicates
from specdraft.results.intervals import Interval, columns
from specdraft.results.kept_tables import ABLATED


class Step(NamedTuple):
    """One group more than the step before.

    Attributes:
        added: the group; `fitted` for the first model that is fitted, on the groups before it.
        scores: `ABLATED`, of conditional acceptance.
        gained: less those of the step before, paired; empty of the first step.
    """

    added: str
    scores: Mapping[str, Interval]
    gained: Mapping[str, Interval]

    @property
    def helps(self) -> bool:
        """Whether the log loss is lower, and not only by chance."""
        return bool(self.gained) and self.gained["log_loss"].high < 0

    @property
    def says(self) -> str:
        """In words."""
        if not self.gained:
            return ""
        return "adds" if self.helps else "harms" if self.gained["log_loss"].low > 0 else "adds nothing"

    def as_row(self) -> dict[str, Any]:
        """Its columns of `kept_tables.ABLATION`; what is gained is NaN of the first step."""
        gained = self.gained or dict.fromkeys(ABLATED, Interval(nan, nan, nan))
        return {"added": self.added, "says": self.says} | columns(self.scores) | columns(gained, "gained_")


def ablate(rows: Rows, fold: np.ndarray, weights: np.ndarray, kind: str = "logistic", seed: int = 0) -> list[Step]:
    """Raw probability, its temperature, then a fitted model with one group more each time.

    Args:
        rows, fold, seed: see `cross_fit`.
        weights: of the prompts, see `scores.weights`.
        kind: of the model that is fitted.
    """
    prompts, before = len(np.unique(rows.prompt)), None
    steps: list[Step] = []
    for added, model, groups in _steps(rows, kind):
        (said,) = cross_fit(model, rows, fold, seed, groups, ["none"])
        found = replicates(said.predictions(rows, "conditional"), weights)
        scores = {name: interval(name, found[name], prompts) for name in ABLATED}
        gained: dict[str, Interval] = {}
        if before is not None:
            gained = {name: difference(found[name], before[name], prompts) for name in ABLATED}
        steps.append(Step(added, scores, gained))
        before = found
    return steps


def _steps(rows: Rows, kind: str) -> Sequence[tuple[str, str, tuple[str, ...]]]:
    """What is added, the model, and the groups that it reads; groups without a column are left out."""
    features = rows.features
    tempered = not np.array_equal(features.tempered, features.log_prob)
    there = [name for name in GROUPS if name != "temperature" or tempered]
    there = [name for name in there if name != "extra" or features.extra.shape[-1]]
    first = tuple(name for name in there if name in ("raw", "temperature"))
    steps: list[tuple[str, str, tuple[str, ...]]] = [(name, name, ()) for name in first]
    steps.append(("fitted", kind, first))
    for name in there[len(first) :]:
        steps.append((name, kind, (*steps[-1][2], name)))
    return steps
