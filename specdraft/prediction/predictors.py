"""Models of conditional acceptance: from a node's features to the log-odds of P(accepted | its parent was).

Each is a value: `fit` makes it from rows that were reached, `logits` applies it, and its fields are all that a file
keeps of it. To add one, derive from `Conditional` and name it in `MODELS`. No class weights: a weighted fit is no
probability (the prior that it shifts would have to be undone), and log loss is proper without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any, ClassVar, Self

import numpy as np

from specdraft.errors import ConfigError
from specdraft.prediction.features import LAST_RANK, Features, columns, log_odds

LARGEST = 14.0  # of log-odds: no frequency that was seen says more
ENOUGH = 400  # rows of a child rank that has an isotonic curve of its own


@dataclass(frozen=True, eq=False)
class Conditional:
    """A model of conditional acceptance.

    Attributes:
        groups: the feature groups that it reads (see `features.GROUPS`); none of one that reads probabilities alone.
    """

    groups: tuple[str, ...] = ()
    kind: ClassVar[str]
    default_groups: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def fit(cls, features: Features, accepted: np.ndarray, watched: Watched, groups: Sequence[str]) -> Self:
        """From reached rows `[R]`; `accepted` `[R]` may be probabilities."""
        raise NotImplementedError

    def logits(self, features: Features) -> np.ndarray:
        """`[...]` log-odds, of the shape that the features have."""
        raise NotImplementedError

    @property
    def only_tempered(self) -> bool:
        """Whether `Features.tempered` is all that it reads of what the drafter says."""
        return set(self.groups) <= {"temperature", "place", "loop"}

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but `groups`, for a file."""
        return {one.name: np.asarray(getattr(self, one.name)) for one in fields(self) if one.name != "groups"}


@dataclass(frozen=True, eq=False)
class Watched:
    """Rows of other prompts, to stop by while fitting; and the seed of what is drawn.

    Attributes:
        features, accepted: `[R]` reached rows.
    """

    features: Features
    accepted: np.ndarray
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Raw(Conditional):
    """The drafter's own probability at temperature 1: what trees are ranked by without a predictor."""

    kind: ClassVar[str] = "raw"

    @classmethod
    def fit(cls, features: Features, accepted: np.ndarray, watched: Watched, groups: Sequence[str]) -> Self:
        return cls()

    @property
    def only_tempered(self) -> bool:
        return False

    def logits(self, features: Features) -> np.ndarray:
        return log_odds(features.log_prob)


@dataclass(frozen=True, eq=False)
class Tempered(Conditional):
    """The drafter's probability at the temperature that the trees were chosen by: one number, fitted before."""

    kind: ClassVar[str] = "temperature"

    @classmethod
    def fit(cls, features: Features, accepted: np.ndarray, watched: Watched, groups: Sequence[str]) -> Self:
        return cls()

    def logits(self, features: Features) -> np.ndarray:
        return log_odds(features.tempered)


@dataclass(frozen=True, eq=False)
class Logistic(Conditional):
    """Logistic regression: log-odds of draft probabilities, repetitions, an intercept per depth and child rank.

    Attributes:
        weights: `[F]` for the columns as they are; `intercept`: a number.
    """

    weights: np.ndarray = field(default_factory=lambda: np.zeros(0))
    intercept: float = 0.0
    kind: ClassVar[str] = "logistic"
    default_groups: ClassVar[tuple[str, ...]] = ("temperature", "place", "loop")

    @classmethod
    def fit(cls, features: Features, accepted: np.ndarray, watched: Watched, groups: Sequence[str]) -> Self:
        from sklearn.linear_model import LogisticRegression

        table = Scaled.of(columns(features, groups))
        # a probability is one row of each outcome, weighted
        split = np.flatnonzero((accepted > 0) & (accepted < 1))
        rows = np.concatenate([table.values, table.values[split]])
        outcome = np.concatenate([accepted > 0, np.zeros(len(split), dtype=bool)])
        weight = np.concatenate([np.where(accepted > 0, accepted, 1.0), 1 - accepted[split]])
        found = LogisticRegression(C=10.0, max_iter=300, tol=1e-5).fit(rows, outcome, weight)
        weights = found.coef_[0] / table.scale
        return cls(tuple(groups), weights, float(found.intercept_[0] - weights @ table.mean))

    def logits(self, features: Features) -> np.ndarray:
        table = columns(features, self.groups)
        return np.clip(table @ self.weights.astype(np.float32) + np.float32(self.intercept), -LARGEST, LARGEST)


@dataclass(frozen=True, eq=False)
class Scaled:
    """Columns brought to mean 0 and spread 1.

    Attributes:
        values: `[R, F]`; `mean`, `scale`: `[F]` what was taken off, and divided by (1 for a column that is constant).
    """

    values: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray) -> Self:
        mean, spread = table.mean(0, dtype=np.float64), table.std(0, dtype=np.float64)
        scale = np.where(spread > 1e-6, spread, 1.0)
        return cls(((table - mean) / scale).astype(np.float32), mean, scale)


@dataclass(frozen=True, eq=False)
class IsotonicByRank(Conditional):
    """A rising step curve from the draft probability to acceptance, per child rank; ranks with few rows share one.

    Attributes:
        at, curve: `[K, n]` the log-odds where the curve of each rank is known and its own there, linear between; padded
            with their last value. Row `LAST_RANK` is the shared one.
        own: `[LAST_RANK + 1]` the row that a rank reads.
    """

    at: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))
    curve: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))
    own: np.ndarray = field(default_factory=lambda: np.zeros(LAST_RANK + 1, dtype=np.int64))
    kind: ClassVar[str] = "isotonic"

    @classmethod
    def fit(cls, features: Features, accepted: np.ndarray, watched: Watched, groups: Sequence[str]) -> Self:
        odds, rank = log_odds(features.tempered), np.clip(features.rank, 0, LAST_RANK)
        rows = np.bincount(rank, minlength=LAST_RANK + 1)
        alone = np.flatnonzero(rows >= ENOUGH)
        shared = ~np.isin(rank, alone)
        curves = [rising_curve(odds[some], accepted[some]) for some in (rank == one for one in alone)]
        curves.append(rising_curve(odds[shared], accepted[shared]) if shared.any() else curves[-1])
        own = np.full(LAST_RANK + 1, len(alone))
        own[alone] = np.arange(len(alone))
        longest = max(len(at) for at, _ in curves)
        at, curve = (np.stack([np.pad(c[i], (0, longest - len(c[i])), "edge") for c in curves]) for i in range(2))
        return cls((), at, curve, own)

    def logits(self, features: Features) -> np.ndarray:
        odds, row = log_odds(features.tempered), self.own[np.clip(features.rank, 0, LAST_RANK)]
        said = np.empty(odds.shape)
        for one in np.unique(row):
            said[row == one] = np.interp(odds[row == one], self.at[one], self.curve[one])
        return said


def rising_curve(odds: np.ndarray, accepted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The isotonic regression of `accepted` on log-odds: points `[n]` of its steps, and the log-odds of its values.

    The values are drawn in by half a row, as no frequency is 0 or 1 for certain.
    """
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression(out_of_bounds="clip").fit(odds, accepted)
    at, value = found.X_thresholds_, found.y_thresholds_
    least = 0.5 / (len(odds) + 1)
    bounded = np.clip(value, least, 1 - least)
    return at, np.log(bounded) - np.log1p(-bounded)


def check_installed() -> None:
    """Raise `ConfigError` where what fits predictors is missing; using one needs nothing."""
    if find_spec("sklearn") is None:
        raise ConfigError("fitting a predictor needs scikit-learn: pip install 'specdraft[predict]'")


def of_arrays(kind: str, groups: Sequence[str], arrays: dict[str, Any]) -> Conditional:
    """The model that `Conditional.arrays` came from. Raises `KeyError` or `TypeError` for others."""
    return models()[kind](tuple(groups), **{name: _plain(value) for name, value in arrays.items()})


def _plain(value: np.ndarray) -> Any:
    return value.item() if value.ndim == 0 else value


def models() -> dict[str, type[Conditional]]:
    """Kind -> class, cheapest first."""
    from specdraft.prediction.mlp import Mlp

    return {model.kind: model for model in (Raw, Tempered, Logistic, IsotonicByRank, Mlp)}
