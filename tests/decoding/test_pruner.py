"""What a predictor is told of the text before a tree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from specdraft.decoding.pruning import Pruning
from specdraft.prediction.features import Features
from specdraft.prediction.pruning.threshold import Threshold
from specdraft.trees.draft_tree import ChosenFrom, DraftTree
from specdraft.trees.topology import Topology


class Spy:
    """Keeps which nodes end a 4-gram that stood before."""

    about = SimpleNamespace(scores_temperature=1.0)

    def __init__(self) -> None:
        self.loops: list[list[bool]] = []

    def log_conditional(self, features: Features) -> np.ndarray:
        self.loops.append(features.loop[0].tolist())
        return np.zeros(features.depth.shape)


def chain(*tokens: int) -> DraftTree:
    nodes = len(tokens) - 1
    logits = torch.randn(nodes, 16, generator=torch.Generator().manual_seed(0))
    row = np.array([0, *range(nodes)])
    return DraftTree(Topology([-1, *range(nodes)]), torch.tensor(tokens), chosen_from=ChosenFrom(logits, row))


def test_repetitions_are_looked_for_in_all_that_was_emitted() -> None:
    spy: Any = Spy()
    pruner = Pruning(Threshold(min_acceptance_prob=0.0), predictor=spy).begin([1, 2, 3])
    for root, tree, accepted in ((4, chain(4, 5, 6), [1, 2]), (3, chain(3, 4, 9), [1]), (5, chain(5, 6, 7), [])):
        pruner.learn(pruner.send(tree), accepted, root)
    assert spy.loops == [[False, False], [False, False], [True, False]]  # 3 4 5 6 stood before
