"""Which nodes policies keep: against the slow way, closed under ancestors, and at the ends of their ranges."""

from __future__ import annotations

from math import ceil, exp, inf, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_trees import topologies

from specdraft.errors import ConfigError
from specdraft.prediction.pruning import Drafted, NoPruning, ScoredPolicy, StepCosts, registry
from specdraft.prediction.pruning.adaptive import Adaptive
from specdraft.prediction.pruning.levels import Levels
from specdraft.prediction.pruning.ratio import Ratio
from specdraft.prediction.pruning.threshold import Threshold
from specdraft.prediction.survival import cumulative
from specdraft.trees.topology import Topology

#      root
#    1      2
#   3 4     5
TREE = Topology([-1, 0, 0, 1, 1, 2])
OWN = [0.6, 0.4, 0.5, 0.3, 0.9]  # survival 0.6, 0.4, 0.3, 0.18, 0.36
POLICIES = [Threshold(min_acceptance_prob=0.2), Ratio(pruning_ratio=0.3), Levels(keep_per_level=2), Adaptive()]
COSTS = StepCosts(np.array([1.0]), np.array([1.0, 1.0, 1.1, 1.2, 1.6, 3.0]))


def drafted(topology: Topology, own: list[float]) -> Drafted:
    parent, depth = topology.parents[None, 1:], topology.depths[None, 1:]
    return Drafted(parent, depth, cumulative(parent, depth, np.log(np.array(own))[None]))


def kept(policy: ScoredPolicy, tree: Drafted, costs: StepCosts = COSTS) -> list[int]:
    (row,) = policy.keep(tree, costs)
    return (np.flatnonzero(row) + 1).tolist()


@pytest.mark.parametrize(
    ("policy", "nodes"),
    [
        (Threshold(min_acceptance_prob=0.0), [1, 2, 3, 4, 5]),
        (Threshold(min_acceptance_prob=0.18 - 1e-12), [1, 2, 3, 4, 5]),
        (Threshold(min_acceptance_prob=0.3 + 1e-12), [1, 2, 5]),
        (Threshold(min_acceptance_prob=0.5), [1]),
        (Threshold(min_acceptance_prob=1.0), []),
        (Ratio(pruning_ratio=0.0), [1, 2, 3, 4, 5]),
        (Ratio(pruning_ratio=0.19), [1, 2, 3, 4, 5]),
        (Ratio(pruning_ratio=0.2), [1, 2, 3, 5]),
        (Ratio(pruning_ratio=0.6), [1, 2]),
        (Ratio(pruning_ratio=1.0), []),
        (Levels(keep_per_level=1), [1, 3]),  # 5 is likelier than 3, and its parent is gone
        (Levels(keep_per_level=2), [1, 2, 3, 5]),
        (Levels(keep_per_level=3), [1, 2, 3, 4, 5]),
    ],
)
def test_of_a_known_tree(policy: ScoredPolicy, nodes: list[int]) -> None:
    assert kept(policy, drafted(TREE, OWN)) == nodes


def test_the_best_tokens_per_second() -> None:
    """Tokens 1, 1.6, 2, 2.36, 2.66, 2.84 in 2, 2, 2.1, 2.2, 2.6, 4 seconds."""
    tree = drafted(TREE, OWN)
    assert kept(Adaptive(), tree) == [1, 2, 5]
    assert kept(Adaptive(), tree, COSTS._replace(fixed_s=np.array([100.0]))) == [1, 2, 3, 4, 5]
    dear = StepCosts(np.array([0.0]), np.array([1.0, 10, 10, 10, 10, 10]))
    assert kept(Adaptive(), tree, dear) == []


@st.composite
def scored(draw: st.DrawFn) -> tuple[Topology, list[float]]:
    topology = draw(topologies(max_nodes=14))
    chances = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])  # equals are likely
    return topology, [draw(chances) for _ in range(topology.num_nodes)]


def survivals(topology: Topology, own: list[float]) -> list[float]:
    """Logarithms, the root's first."""
    found = [0.0]
    for node, chance in enumerate(own, start=1):
        found.append(found[topology.parents[node]] + (log(chance) if chance else -inf))
    return found


def slowly(policy: ScoredPolicy, topology: Topology, survival: list[float], costs: StepCosts) -> list[int]:
    """What a policy says, node by node."""
    nodes = sorted(range(1, len(topology)), key=lambda node: (-survival[node], node))
    match policy:
        case Threshold():
            return sorted(n for n in nodes if survival[n] >= log(policy.min_acceptance_prob))
        case Ratio():
            return sorted(nodes[: ceil((1 - policy.pruning_ratio) * len(nodes) - 1e-9)])
        case Levels():
            chosen = {0}
            for depth in range(1, topology.depth + 1):
                level = [n for n in nodes if topology.depths[n] == depth and int(topology.parents[n]) in chosen]
                chosen |= set(level[: policy.keep_per_level])
            return sorted(chosen - {0})
        case _:
            tokens = [1 + sum(exp(survival[n]) for n in nodes[:count]) for count in range(len(nodes) + 1)]
            rates = [t / (costs.fixed_s[0] + costs.verify_s[count]) for count, t in enumerate(tokens)]
            best = max(range(len(rates)), key=lambda count: (round(rates[count], 12), -count))
            return sorted(nodes[:best])


@pytest.mark.filterwarnings("ignore:divide by zero")
@given(scored(), st.sampled_from(POLICIES))
@settings(max_examples=60, deadline=None)
def test_arrays_keep_what_loops_do_and_ancestors_with_it(
    tree: tuple[Topology, list[float]], policy: ScoredPolicy
) -> None:
    topology, own = tree
    verify_s = 1 + 0.07 * np.arange(len(topology)) ** 1.3
    costs = StepCosts(np.array([0.5]), verify_s)
    found = kept(policy, drafted(topology, own), costs)
    assert found == slowly(policy, topology, survivals(topology, own), costs)
    assert {int(topology.parents[node]) for node in found} <= {0, *found}


def test_many_trees_are_pruned_as_each_alone() -> None:
    """Trees of other sizes side by side: what is no node is never kept."""
    rng = np.random.default_rng(0)
    trees = [
        drafted(TREE, rng.random(5).tolist()),
        drafted(Topology([-1, 0, 1]), [0.9, 0.8]),
        drafted(Topology([-1]), []),
    ]

    def padded(values: np.ndarray, empty: float) -> np.ndarray:
        return np.pad(values[0], (0, 5 - values.shape[1]), constant_values=empty)

    ends = ((0, -1), (1, 0), (2, 0))
    together = Drafted(*(np.stack([padded(tree[field], empty) for tree in trees]) for field, empty in ends))
    costs = StepCosts(np.array([0.5, 0.1, 0.2]), COSTS.verify_s)
    for policy in (Threshold(min_acceptance_prob=0.3), Ratio(), Levels(keep_per_level=1), Adaptive()):
        rows = policy.keep(together, costs)
        for row, tree, fixed_s in zip(rows, trees, costs.fixed_s, strict=True):
            alone = policy.keep(tree, StepCosts(np.array([fixed_s]), COSTS.verify_s))[0].tolist()
            assert row.tolist() == alone + [False] * (5 - len(alone))
    assert NoPruning().keep(together).sum(1).tolist() == [5, 2, 0]
    assert together.fed.tolist() == [[1, 2], [1, 1], [0, 0]]


def test_survival_is_the_product_along_the_path() -> None:
    assert np.exp(drafted(TREE, OWN).log_survival[0]).tolist() == pytest.approx([0.6, 0.4, 0.3, 0.18, 0.36])


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (Threshold(min_acceptance_prob=1.5), "pruning.min_acceptance_prob=1.5 is out of range; expected 0 to 1"),
        (Threshold(min_acceptance_prob=-0.1), "expected 0 to 1"),
        (Threshold(min_acceptance_prob=float("nan")), "pruning.min_acceptance_prob=nan is out of range"),
        (Ratio(pruning_ratio=25), "pruning.pruning_ratio=25 is out of range; expected 0 to 1"),
        (Levels(keep_per_level=0), "pruning.keep_per_level=0 is out of range; expected 1 or more"),
        (Ratio(scores="calibratd"), "pruning.scores=calibratd is not known; did you mean 'calibrated'"),
        (Adaptive(predictor="x.safetensors"), "it goes with pruning.scores=predictor"),
    ],
)
def test_out_of_range(policy: ScoredPolicy, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        policy.check()


def test_the_kinds_and_how_they_are_called() -> None:
    assert {*registry()} == {"none", "threshold", "adaptive", "levels", "ratio"}
    assert [registry()[kind]().label for kind in registry()] == [*registry()]
    assert Threshold(min_acceptance_prob=0.5, scores="raw").label == "threshold-sraw-map0.5"
    assert (NoPruning().prunes, NoPruning().fits_scores, Threshold().fits_scores) == (False, False, True)
    by_predictor = Ratio(scores="predictor")
    by_predictor.check()
    assert by_predictor.fits_scores and by_predictor.fits_predictor and not Threshold().fits_predictor
    assert not Ratio(scores="predictor", predictor="x.safetensors").fits_scores
    assert not Threshold(scores="raw").fits_scores
