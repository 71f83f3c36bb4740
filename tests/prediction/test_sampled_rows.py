"""What predictors learn from sampled texts: chances that are those of the enumerated law, not yes or no."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from specdraft.acceptance import TopK
from specdraft.config import Settings
from specdraft.drafters.base import Expansion, NodeFeatures, RecordedText
from specdraft.drafters.pair import Pair
from specdraft.losslessness.enumeration import Prefix, Step, World, key
from specdraft.prediction import cross_fitting
from specdraft.prediction.calibration import Calibration
from specdraft.prediction.cross_fitting import Fit
from specdraft.prediction.predictors import Raw
from specdraft.prediction.rows import Recorded, Rows, collect
from specdraft.prompts import Prompt
from specdraft.replay.folds import halves
from specdraft.sampling.distribution import Sampling
from specdraft.study.engines import predictors
from specdraft.study.recorded import record_texts
from specdraft.study.recorded_trees import recorded_trees
from specdraft.trees.shapes import NestedPlan
from specdraft.trees.topology import Topology

TREE = Topology([-1, 0, 0, 1, 1, 2], [0, 0, 1, 0, 2, 1])  # 0, 1, 0/0, 0/2, 1/1
PATHS = [(0,), (1,), (0, 0), (0, 2), (1, 1)]


def order(world: World, prefix: Prefix) -> list[int]:
    """The drafter's tokens after a prefix, best first."""
    return [int(token) for token in world.scores(prefix).argsort(descending=True)]


def recorded(world: World, sampling: Sampling, text: Prefix, soft: bool = True) -> Recorded:
    """The tree below the root of a text of two tokens, and none below its first token."""
    token = [order(world, tuple(order(world, ())[rank] for rank in path[:-1]))[path[-1]] for path in PATHS]
    empty = np.full(5, -1)
    parent, rank = (np.stack([each[1:], empty]) for each in (TREE.parents, TREE.ranks))
    trees = Expansion(parent.astype(np.int16), rank.astype(np.int16), np.stack([token, empty]), np.zeros((2, 5)))
    chances = np.zeros((3, world.vocab))
    for position, prefix in ((1, ()), (2, text[:1])):
        chances[position] = world.target(prefix, key(sampling))[order(world, prefix)]
    nodes = NodeFeatures(*[np.zeros((2, 5), dtype=np.float32)] * 4)
    return Recorded(RecordedText([7], np.array([0, *text])), trees, nodes, chances if soft else None)


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.7, top_k=2)], ids=["plain", "truncated"])
@pytest.mark.parametrize("soft", [True, False], ids=["chances", "yes or no"])
def test_outcomes_are_those_of_the_enumerated_law(sampling: Sampling, soft: bool) -> None:
    """Over every text of a world of 3 tokens, each as probable as the target says, a node is accepted as often as the
    rule accepts it; and a chance alone already is the law's, given that the parent was accepted."""
    for seed in range(4):
        world = World(3, seed)
        law = dict.fromkeys(PATHS, 0.0) | {(): 1.0} | Step(world, TREE, TopK(), sampling, sampling).reached()
        found, alone = dict.fromkeys(PATHS, 0.0), []
        for text in product(range(3), repeat=2):
            chance = float(world.target((), key(sampling))[text[0]] * world.target(text[:1], key(sampling))[text[1]])
            rows = collect([recorded(world, sampling, text, soft)])
            for path, reached, accepted in zip(PATHS, rows.reached, rows.accepted, strict=True):
                found[path] += chance * accepted
                if reached and chance:
                    alone.append(accepted == pytest.approx(law[path] / law[path[:-1]], abs=1e-12))
        assert [found[path] for path in PATHS] == pytest.approx([law[path] for path in PATHS], abs=1e-12)
        assert len(alone) > 10 and all(alone) == soft


class Fitted(NamedTuple):
    """One fit of a sweep, which learns nothing: to these rows, on these prompts."""

    rows: Rows
    prompts: list[int]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_sweep_fits_each_half_to_the_other_and_to_chances(
    temperature: float, tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[Fitted] = []
    grown: dict[str, NestedPlan] = {}

    def fit(kind: str, rows: Rows, some: np.ndarray, seed: int) -> Fit:
        fits.append(Fitted(rows, some.tolist()))
        return Fit(Raw((str(len(fits) - 1),)), {"none": Calibration()})

    def trees(*given: Any) -> list[Recorded]:
        grown.update(given[4])
        return recorded_trees(*given)

    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path))
    monkeypatch.setattr(predictors, "NODES", 6)
    monkeypatch.setattr(cross_fitting, "fit", fit)
    monkeypatch.setattr("specdraft.study.recorded_trees.recorded_trees", trees)
    prompts, sampling = [Prompt("a", "x", "It was"), Prompt("b", "x", "x =")], Sampling(temperature)
    texts = record_texts(tiny_pair, prompts, "auto", sampling, Settings(max_new_tokens=8), 6)
    calibration, half = texts.calibrate(), halves(prompts, 0).tolist()
    given = (texts.prompt_ids, texts.traces, sampling, calibration, 0, texts.store)
    told = predictors.cross_fit_predictors(tiny_pair, prompts, *given)
    assert sorted(half) == [0, 1] and calibration.folds[0].value != calibration.folds[1].value
    for place, name in enumerate(("a", "b")):
        mine = fits[int(told[name].about.groups[0])]
        assert mine.prompts == [1 - place]
        assert told[name].about.scores_temperature == grown[name].temperature == calibration.folds[half[place]].value
    rows = fits[0].rows
    between = (rows.accepted > 0) & (rows.accepted < 1)
    assert rows.reached.sum() > 30 and not rows.accepted[~rows.reached].any()
    assert (between == (rows.reached if temperature else False)).all()
