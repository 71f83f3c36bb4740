"""What pruning does to the law of a text, by enumeration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from specdraft.acceptance import AcceptanceRule, NoReplacement, Recursive, Rejection, TopK
from specdraft.decoding.fitting import Together
from specdraft.errors import ConfigError
from specdraft.losslessness.enumeration import EXACT, Prefix, Step, World, shape
from specdraft.prediction.pruning import Drafted, ScoredPolicy, StepCosts
from specdraft.prediction.pruning.adaptive import Adaptive
from specdraft.prediction.pruning.levels import Levels
from specdraft.prediction.pruning.ratio import Ratio
from specdraft.prediction.pruning.threshold import Threshold
from specdraft.prediction.survival import cumulative
from specdraft.sampling.distribution import Sampling
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary

Kept = Callable[[DraftTree, list[Prefix]], Sequence[int]]
THRESHOLD = Threshold(min_acceptance_prob=0.2, scores="raw")
POLICIES = [THRESHOLD, Ratio(pruning_ratio=0.5), Levels(keep_per_level=1), Adaptive()]
COSTS = StepCosts(np.array([0.2]), 1 + 0.3 * np.arange(9.0))
SAMPLED = Sampling(1.0)


def by(policy: ScoredPolicy, survival: Callable[[list[Prefix]], list[float]]) -> Kept:
    """As a policy says, of nodes with this conditional acceptance."""

    def kept(tree: DraftTree, texts: list[Prefix]) -> Sequence[int]:
        parent, depth = tree.topology.parents[None, 1:], tree.topology.depths[None, 1:]
        own = np.log(np.array([survival(texts)]) + 1e-300)
        there = policy.keep(Drafted(parent, depth, cumulative(parent, depth, own)), COSTS)[0]
        return [0, *(np.flatnonzero(there) + 1).tolist()]

    return kept


def drafter_of(world: World) -> Callable[[list[Prefix]], list[float]]:
    """The drafter's own probabilities of the nodes."""
    return lambda texts: [float(world.scores(text[:-1]).softmax(-1)[text[-1]]) for text in texts[1:]]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
def test_children_that_are_ranked_may_be_pruned(policy: ScoredPolicy) -> None:
    world, sizes = World(3), set()
    kept = by(policy, drafter_of(world))

    def counted(tree: DraftTree, texts: list[Prefix]) -> Sequence[int]:
        sizes.add(len(kept(tree, texts)))
        return kept(tree, texts)

    for topology in (shape(2, 2), shape(1, 1, 1), shape(3)):
        assert Step(world, topology, TopK(), SAMPLED, SAMPLED, counted).distance() < EXACT
    assert min(sizes) < 7  # something was pruned


@pytest.mark.parametrize("rule", [Recursive(), NoReplacement()], ids=lambda rule: rule.kind)
def test_children_that_are_drawn_may_not(rule: AcceptanceRule) -> None:
    world = World(3)
    assert Step(world, shape(2, 1), rule, SAMPLED, SAMPLED).distance() < EXACT
    assert Step(world, shape(2, 1), rule, SAMPLED, SAMPLED, by(THRESHOLD, drafter_of(world))).distance() > 0.01


def test_what_looks_at_the_parents_distribution_alone_may_prune_drawn_children() -> None:
    world = World(3)
    sizes = set()

    def kept(tree: DraftTree, texts: list[Prefix]) -> Sequence[int]:
        """A node keeps its children if the drafter is sure enough of what follows."""
        sure = [float(world.scores(text).softmax(-1).max()) > 0.45 for text in texts]
        nodes = [0]
        for node in range(1, len(tree)):
            parent = int(tree.topology.parents[node])
            nodes += [node] if parent in nodes and sure[parent] else []
        sizes.add(len(nodes))
        return nodes

    assert Step(world, shape(2, 1), Recursive(), SAMPLED, SAMPLED, kept).distance() < EXACT
    assert len(sizes) > 1


class TwoTokens(World):
    """The same two distributions everywhere: the target's (.7, .3) and the drafter's (.5, .5)."""

    def _logits(self, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        both = torch.tensor([[0.7, 0.3], [0.5, 0.5]], dtype=torch.float64).log()
        return both[0], both[1]


def of_the_drawn_token(texts: list[Prefix]) -> list[float]:
    """The first node is accepted with .8; the second with .9 after token 0, never after token 1."""
    return [0.8, 0.9 if texts[1] == (0,) else 0.0]


class Throughput(Adaptive):
    """Step rates 1, .5, .45 for 0, 1, 2 draft tokens: after token 0 both are sent, after token 1 none."""

    def keep(self, drafted: Drafted, costs: StepCosts | None = None) -> np.ndarray:
        return super().keep(drafted, StepCosts(np.zeros(1), 1 / np.array([1, 0.5, 0.45])))


def test_the_published_counterexample_is_found() -> None:
    """Appendix A of DSpark: whether the first token is checked hangs on which token it is."""
    world, chain = TwoTokens(2), shape(1, 1)
    step = Step(world, chain, Rejection(), SAMPLED, SAMPLED, by(Throughput(), of_the_drawn_token))
    law = step.law()
    assert sum(chance for text, chance in law.items() if text[0] == 0) == pytest.approx(0.5 + 0.5 * 0.7)  # not .7
    assert step.distance(law) > 0.14
    assert Step(world, chain, Rejection(), SAMPLED, SAMPLED).distance() < EXACT


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
@pytest.mark.parametrize(
    ("rule", "tree"), [(Rejection(), Chain()), (Recursive(), Kary())], ids=["rejection", "recursive"]
)
def test_it_is_refused(policy: ScoredPolicy, rule: AcceptanceRule, tree: Chain) -> None:
    together = Together(tree, 4, rule, SAMPLED, 64, pruning=policy)
    why = f"pruning={policy.kind} looks at drawn children, and acceptance={rule.kind} draws them at random"
    with pytest.raises(ConfigError, match=f"{why}.*changes the law of the text; rules that fit: topk, typical"):
        together.refuse()
    Together(tree, 4, TopK(), SAMPLED, 64, pruning=policy).refuse()
