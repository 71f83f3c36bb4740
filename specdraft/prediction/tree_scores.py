"""A predictor as what ranks the nodes of growing trees: see `trees.shapes.base.Scorer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from specdraft.drafters.pair import PairFiles
from specdraft.prediction.features import Features, Siblings, roots
from specdraft.prediction.predictor import Predictor, load_predictor, refuse_features
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes.base import LevelScores, SaidChildren

GROUPS = ("raw", "temperature", "place", "spread", "parent")  # what is known while a tree grows


@dataclass(frozen=True)
class PredictedScores:
    """Ranks nodes by the logarithms of a predictor's survival.

    Attributes:
        name: see `Predictor.digest`: trees that are recorded under it depend on nothing else of it.
        temperature: of the scores that it reads.
    """

    name: str
    temperature: float
    predictor: Predictor = field(compare=False, repr=False)

    def begin(self, roots: int) -> LevelScores:
        """See `Scorer.begin`."""
        return _Levels(self.predictor, roots)


class _Levels:
    """See `LevelScores`."""

    def __init__(self, predictor: Predictor, count: int) -> None:
        self._predictor, self._above = predictor, roots(count)
        self._found: Features = self._above

    def children(self, said: SaidChildren) -> np.ndarray:
        siblings = Siblings(said.log_probs, said.tempered, said.entropy, said.second)
        self._found, scores = self._predictor.children(self._above, siblings)
        return scores

    def keep(self, rows: np.ndarray, ranks: np.ndarray) -> None:
        self._above = self._found.at((rows, ranks))


def scores_of(path: str, files: PairFiles, sampling: Sampling) -> PredictedScores:
    """The scores of a predictor's file, for a pair and how its texts are sampled.

    Raises:
        ConfigError: it is another pair's, or reads what is not known while a tree grows.
        ResultsError: it cannot be read, or is something else.
    """
    where = Path(path)
    predictor = load_predictor(where, files, sampling)
    refuse_features(predictor, where, GROUPS)
    return PredictedScores(predictor.digest, predictor.about.scores_temperature, predictor)
