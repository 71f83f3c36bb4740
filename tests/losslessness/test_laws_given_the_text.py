"""What a step accepts given the text that it emits: enumerated live, beside what replay says from the text alone."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
import pytest
import torch
from support.laws import weights_of_text

from specdraft.acceptance import AcceptanceRule, Block, KSeq, Membership, Recursive, Rejection, Traversal
from specdraft.losslessness.enumeration import PLAIN, Prefix, Step, World, key, shape
from specdraft.sampling.distribution import Sampling
from specdraft.sampling.draft import AS_TARGET, Drawn
from specdraft.trees.topology import RankPath, Topology

RULES: list[AcceptanceRule] = [Rejection(), Block(), Recursive(), KSeq(), Membership(), Traversal()]
TREES = {
    "chain": (2, shape(1, 1, 1)),
    "wide": (3, shape(3)),
    "2-2": (2, shape(2, 2)),
    "1-3": (3, shape(1, 3)),
    "uneven": (3, Topology([-1, 0, 0, 2, 1, 2])),
    "deep": (2, Topology([-1, 0, 0, 2, 0, 2, 5, 1])),
}
TOP_P = Sampling(0.8, top_p=0.8)
SAMPLINGS = {
    "t1": (PLAIN, AS_TARGET),
    "top-p": (TOP_P, AS_TARGET),
    "hotter": (PLAIN, Drawn.of(1.6, PLAIN)),
    "cooling": (PLAIN, Drawn.of([1.6, 1.0, 0.5], PLAIN)),
    "one-hot first": (TOP_P, Drawn.of([0, 1.3], TOP_P)),
}


def chance_of(world: World, text: Prefix, sampling: Sampling, first: int = 0) -> float:
    """Under the target, of the tokens from `first` given those before."""
    rows = [float(world.target(text[:n], key(sampling))[text[n]]) for n in range(first, len(text))]
    return float(np.prod(rows))


def live(step: Step) -> dict[Prefix, dict[RankPath, float]]:
    """Text -> node -> P(it is accepted, the text is emitted); the target goes on where the step ends."""
    found: dict[Prefix, dict[RankPath, float]] = defaultdict(lambda: defaultdict(float))
    for tree, accepted, chance in step.outcomes():
        said = (*accepted.tokens, accepted.bonus)
        for rest in product(range(step.world.vocab), repeat=step.topology.depth + 1 - len(said)):
            text = said + rest
            own = chance * chance_of(step.world, text, step.target, len(said))
            for node in accepted.nodes:
                found[text][tree.topology.paths[node]] += own
    return found


def replayed(step: Step) -> dict[Prefix, dict[RankPath, float]]:
    """The same from what is recorded along each text."""
    found = {}
    for text in product(range(step.world.vocab), repeat=step.topology.depth + 1):
        prefixes = [text[:n] for n in range(len(text))]
        target = torch.stack([step.world.target(prefix, key(step.target)) for prefix in prefixes])
        settings = [level.at(1, step.drawn) for level in step.by_depth.levels]
        drafts = [torch.stack([step.world.draft(prefix, key(drawn)) for prefix in prefixes]) for drawn in settings]
        weights = weights_of_text(step.rule, step.topology, target, drafts, torch.tensor(text))
        said = chance_of(step.world, text, step.target)
        found[text] = {
            path: said * weight for path, weight in zip(step.topology.paths[1:], weights[1:], strict=True) if said
        }
    return found


LONG = set(product(("uneven", "deep"), ("hotter", "cooling")))
CASES = [
    pytest.param(tree, *setting, id=f"{tree}-{said}", marks=[pytest.mark.slow] * ((tree, said) in LONG))
    for tree, (said, setting) in product(TREES, SAMPLINGS.items())
]


@pytest.mark.parametrize(("tree", "sampling", "drawn"), CASES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_replay_is_the_live_law_given_each_text(
    rule: AcceptanceRule, tree: str, sampling: Sampling, drawn: Drawn
) -> None:
    vocab, topology = TREES[tree]
    if rule.misfit(sampling, chain=topology.is_chain):
        pytest.skip("for chains only")
    step = Step(World(vocab, seed=2, likeness=0.3), topology, rule, sampling, sampling, by_depth=drawn)
    enumerated, told = live(step), replayed(step)
    assert any(nodes for nodes in enumerated.values())
    for text, nodes in told.items():
        assert nodes == pytest.approx({path: enumerated[text][path] for path in nodes}, abs=1e-9)


class OffTheText(World):
    """As another world after every beginning of one text, and different everywhere else."""

    def __init__(self, world: World, text: Prefix, seed: int) -> None:
        super().__init__(world.vocab, seed, 0.0)
        self._world, self._text = world, text

    def _logits(self, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        if prefix == self._text[: len(prefix)]:
            return self._world._logits(prefix)
        return super()._logits(prefix)


@pytest.mark.parametrize("tree", ["2-2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("uneven", "deep"))])
def test_what_traversal_accepts_of_a_text_depends_on_nothing_off_it(tree: str) -> None:
    """Subtrees off the text are tried before the text's own nodes are, on distributions that no trace holds; given the
    text they cancel, while what is accepted on average over all texts does change."""
    vocab, topology = TREES[tree]
    world = World(vocab, seed=2, likeness=0.3)
    whole = live(Step(world, topology, Traversal()))
    text = max(whole, key=lambda one: (len(whole[one]), sum(whole[one].values())))
    worlds = world, OffTheText(world, text, 7), OffTheText(world, text, 8)
    steps = [Step(one, topology, Traversal()) for one in worlds]
    here, *there = [live(step)[text] for step in steps]
    assert len(here) > topology.depth and sum(here.values()) > 1e-3
    assert all(other == pytest.approx(here, abs=1e-12) for other in there)
    accepted = [step.accepted_tokens() for step in steps]
    assert all(abs(other - accepted[0]) > 1e-4 for other in accepted[1:])
