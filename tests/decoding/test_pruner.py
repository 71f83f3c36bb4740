"""What a predictor is told of the text before a tree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

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
from specdraft.trees.shapes.chain import Chain
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


def test_the_scores_that_a_tree_grew_by_are_not_asked_for_again() -> None:
    """They are those of its logits; any other policy, temperature or plan has these kept."""
    drafter, plan = small().drafter, BestFirst(max_depth=4).at(10).at_temperature(0.5)
    told, spy = Pruning(Threshold(), 0.5), cast("Any", Spy())
    assert not told.scores(plan) and not Pruning().scores(plan)
    assert told.scores(plan.at_temperature(1.0)) and told.scores(Chain().at(4))
    assert Pruning(Threshold(), 0.5, predictor=spy).scores(plan)
    assert Pruning(Threshold(online=True), 0.5).scores(plan) and told.scores(plan.scored_by(spy))
    found = []
    for kept in (False, True):
        drafter.begin(Prefilled([5, 6, 7]))
        tree = drafter.draft(5, plan, Drawing(keep_logits=kept))
        assert (tree.chosen_from is not None) == kept
        found.append(told.begin([5, 6, 7]).score(tree))
    assert found[0].log_survival == pytest.approx(found[1].log_survival, abs=1e-6)
    assert np.array_equal(found[0].parent, found[1].parent) and found[0].log_survival.shape == (1, 10)
