"""What ending a chain between drawn tokens does to the law of a text, by enumeration."""

from __future__ import annotations

import numpy as np
import pytest

from specdraft.acceptance import AcceptanceRule, registry
from specdraft.losslessness.enumeration import EXACT, Prefix, Step, World, shape
from specdraft.prediction.length.base import Said
from specdraft.prediction.length.hf_confidence import HfConfidence
from specdraft.sampling.distribution import Sampling
from specdraft.trees.draft_tree import DraftTree

SAMPLED, SURE = Sampling(1.0), 0.35
RULES = [rule() for rule in registry().values() if rule.draw != "rank"]


class Ended:
    """Keeps a chain up to its first unsure token, that one with it or without."""

    def __init__(self, world: World, unsure_too: bool) -> None:
        self.world, self.unsure_too, self.lengths = world, unsure_too, set[int]()

    def __call__(self, tree: DraftTree, texts: list[Prefix]) -> list[int]:
        own = [float(self.world.scores(text[:-1]).softmax(-1)[text[-1]]) for text in texts[1:]]
        said = Said(np.cumsum(np.log(own)), np.zeros(len(own), dtype=np.float32))
        length = HfConfidence(threshold=SURE).begin(len(own)).length(said)
        self.lengths.add(length)
        return list(range(length + (self.unsure_too or own[length - 1] >= SURE)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_a_chain_may_end_after_a_token_for_what_it_is(rule: AcceptanceRule) -> None:
    world = World(3)
    kept = Ended(world, unsure_too=True)
    assert Step(world, shape(1, 1, 1), rule, SAMPLED, SAMPLED, kept).distance() < EXACT
    assert kept.lengths == {1, 2, 3}


@pytest.mark.parametrize("kind", ["rejection", "block", "traversal"])
def test_but_not_before_it(kind: str) -> None:
    world = World(3)
    rule = registry()[kind]()
    assert Step(world, shape(1, 1, 1), rule, SAMPLED, SAMPLED, Ended(world, unsure_too=False)).distance() > 0.01
