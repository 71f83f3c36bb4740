"""A predictor as what ranks the nodes of growing trees: see `trees.shapes.base.Scorer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from specdraft.drafters.pair import PairFiles
from specdraft.prediction.features import Features, Siblings, only_tempered, roots
from specdraft.prediction.loops import GrowingPaths
from specdraft.prediction.predictor import Predictor, load_predictor, refuse_features
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes.base import NodeScores, SaidChildren, TextsBefore

GROUPS = ("raw", "temperature", "place", "spread", "parent", "loop")  # what is known while a tree grows


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

    @property
    def only_tempered(self) -> bool:
        """See `Scorer.only_tempered`."""
        return self.predictor.model.only_tempered

    def begin(self, before: TextsBefore) -> NodeScores:
        """See `Scorer.begin`."""
        nodes = _TemperedNodes if self.only_tempered else _Nodes
        return nodes(self.predictor, before)


class _Nodes:
    """See `NodeScores`."""

    def __init__(self, predictor: Predictor, before: TextsBefore) -> None:
        self._predictor = predictor
        self._found = roots(len(before))
        self._paths = GrowingPaths(before) if "loop" in predictor.about.groups else None
        self._kept, self._first = [self._found], [0]  # nodes as they were found together, and their first numbers

    def children(self, above: np.ndarray, said: SaidChildren) -> np.ndarray:
        loop = self._paths.loops(above, said.tokens) if self._paths else None
        siblings = Siblings(said.log_probs, said.tempered, said.entropy, said.second, loop)
        self._found, scores = self._predictor.children(self._at(above), siblings)
        return scores

    def keep(self, rows: np.ndarray, ranks: np.ndarray) -> None:
        self._first.append(self._first[-1] + len(self._kept[-1].depth))
        self._kept.append(self._found.at((rows, ranks)))
        if self._paths:
            self._paths.keep(rows, ranks)

    def _at(self, nodes: np.ndarray) -> Features:
        if nodes.min(initial=self._first[-1]) < self._first[-1]:  # in a level by level growth it never is
            self._kept = [Features(*(np.concatenate(fields) for fields in zip(*self._kept, strict=True)))]
            self._first = [0]
        return self._kept[-1].at(nodes - self._first[-1])


class _TemperedNodes:
    """See `NodeScores`; for a predictor that need not know more of a node than how deep it is."""

    def __init__(self, predictor: Predictor, before: TextsBefore) -> None:
        self._predictor = predictor
        self._paths = GrowingPaths(before) if "loop" in predictor.about.groups else None
        self._depth = np.zeros(len(before), dtype=np.int64)
        self._above = self._depth

    def children(self, above: np.ndarray, said: SaidChildren) -> np.ndarray:
        self._above, shape = above, said.tokens.shape
        loop = self._paths.loops(above, said.tokens) if self._paths else np.zeros(shape, dtype=bool)
        depth = np.broadcast_to(self._depth[above, None] + 1, shape)
        rank = np.broadcast_to(np.arange(shape[1]), shape)
        return self._predictor.log_conditional(only_tempered(depth, rank, said.tempered, loop))

    def keep(self, rows: np.ndarray, ranks: np.ndarray) -> None:
        self._depth = np.concatenate([self._depth, self._depth[self._above[rows]] + 1])
        if self._paths:
            self._paths.keep(rows, ranks)


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
