"""What a predictor is told of the text before a tree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.recorded import small

from specdraft.decoding.drafted_features import TreeReader
from specdraft.decoding.pruning import Pruning
from specdraft.drafters.base import Drawing, Prefilled, RecordedText
from specdraft.prediction.calibration import Calibration
from specdraft.prediction.features import GROUPS, Features, columns, roots
from specdraft.prediction.mlp import Mlp
from specdraft.prediction.predictor import About, Predictor
from specdraft.prediction.pruning.threshold import Threshold
from specdraft.prediction.rows import tree_features
from specdraft.sampling.distribution import Sampling
from specdraft.trees.draft_tree import ChosenFrom, DraftTree
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.topology import Topology


class Spy:
    """Keeps which nodes end a 4-gram that stood before."""

    about = SimpleNamespace(scores_temperature=0.5, groups=("temperature", "loop"))
    model = SimpleNamespace(only_tempered=True)

    def __init__(self) -> None:
        self.loops: list[list[bool]] = []

    def log_conditional(self, features: Features) -> np.ndarray:
        self.loops.append(features.loop.tolist())
        return np.zeros(features.depth.shape)


def chain(*tokens: int) -> DraftTree:
    nodes = len(tokens) - 1
    logits = torch.randn(nodes, 16, generator=torch.Generator().manual_seed(0))
    row = np.array([0, *range(nodes)])
    return DraftTree(Topology([-1, *range(nodes)]), torch.tensor(tokens), chosen_from=ChosenFrom(logits, row))


def test_repetitions_are_looked_for_in_all_that_was_emitted() -> None:
    spy: Any = Spy()
    pruner = Pruning(Threshold(min_acceptance_prob=0.0), predictor=spy).begin([1, 2, 3])
    trees = (chain(4, 5, 6), [1, 2]), (chain(3, 4, 9), [1]), (chain(5, 6, 7), []), (chain(9, 8, 8, 8, 8, 8, 8), [])
    for tree, accepted in trees:
        pruner.learn(pruner.send(tree), accepted, tree.token_list()[0])
    assert spy.loops[:3] == [[False, False], [False, False], [True, False]]  # 3 4 5 6 stood before
    assert spy.loops[3] == [False] * 4 + [True] * 2  # 8 8 8 8 stands above


def test_a_drafted_tree_has_the_features_of_a_recorded_one() -> None:
    """Of every node, whichever kind of predictor reads them."""
    pair, rng = small(), np.random.default_rng(0)
    plan, read = BestFirst().at(10).at_temperature(0.5), {}
    prompt = [5, 6, 7, 5, 6, 7, 5, 6]
    for groups in (("temperature", "place", "loop"), tuple(name for name in GROUPS if name != "extra")):
        width = columns(roots(1), groups).shape[-1]
        model = Mlp(groups, *(rng.normal(size=size).astype(np.float32) for size in ((width, 3), (3,), (3,))))
        about = About("", "", "", "", Sampling(), 0.5, "mlp", "none", groups, 0, 0)
        read[groups] = TreeReader(prompt, Predictor(model, Calibration(), about))
    tokens = np.array([7, 5, 6, 7, 5, 9])
    (recorded,) = pair.drafter.describe_trees([RecordedText(prompt, tokens)], plan)
    assert recorded.nodes is not None
    wanted = tree_features(recorded.expansion, recorded.nodes, RecordedText(prompt, tokens))
    drafter = pair.drafter
    for start, root in enumerate(tokens[:-1].tolist()):
        drafter.begin(Prefilled([*prompt, *tokens[:start].tolist()]))
        tree = drafter.draft(root, plan, Drawing(keep_logits=True))
        for groups, reader in read.items():
            said, there = columns(reader.features(tree), groups), recorded.expansion.parent[start] >= 0
            assert said == pytest.approx(columns(wanted.at(start), groups)[there], abs=1e-4)
            reader.commit([root])
