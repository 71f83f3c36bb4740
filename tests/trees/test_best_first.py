from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdraft.errors import ConfigError
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.growth import Growth
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.topology import RankPath, Topology

VOCAB = 5
Law = Callable[[tuple[int, ...]], np.ndarray]


def law_of(seed: int, coarse: bool) -> Law:
    """Log-probabilities of the next token after a context; coarse ones tie often."""

    def law(context: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([seed, *context])
        weights = rng.integers(1, 3, VOCAB).astype(float) if coarse else rng.random(VOCAB) ** 3
        return np.log(weights / (4.0 if coarse else weights.sum()))

    return law


def tempered(law: Law, temperature: float) -> Law:
    """A law with its logarithms over a temperature."""
    if temperature == 1:
        return law

    def scaled(context: tuple[int, ...]) -> np.ndarray:
        values = law(context) / temperature
        return np.asarray(values - np.log(np.exp(values).sum()))

    return scaled


def best(law: Law, context: tuple[int, ...]) -> list[tuple[int, float]]:
    """(token, log-probability) by (-log-probability, token)."""
    values = law(context)
    return [(int(t), float(values[t])) for t in np.lexsort((np.arange(VOCAB), -values))]


def considered(children: list[tuple[int, float]], top_p: float) -> list[tuple[int, float]]:
    """The first ones that hold so much probability together."""
    kept, mass = [], 0.0
    for token, value in children:
        if mass < top_p or top_p == 1:
            kept.append((token, value))
        mass += float(np.exp(value))
    return kept


def by_hand(
    law: Law, n: int, max_depth: int, max_children: int, min_prob: float, top_p: float = 1.0
) -> list[tuple[RankPath, int]]:
    """Grow one node at a time by (-cumulative, depth, path): the definition, in plain Python."""
    heap: list[tuple[float, int, RankPath, tuple[int, ...]]] = []

    def push(path: RankPath, context: tuple[int, ...], reached: float) -> None:
        for rank, (token, value) in enumerate(considered(best(law, context), top_p)[:max_children]):
            if len(path) < max_depth and (min_prob == 0 or reached + value >= log(min_prob)):
                heapq.heappush(heap, (-(reached + value), len(path) + 1, (*path, rank), (*context, token)))

    push((), (), 0.0)
    found: list[tuple[RankPath, int]] = []
    while heap and len(found) < n:
        negative, _, path, context = heapq.heappop(heap)
        found.append((path, context[-1]))
        push(path, context, -negative)
    return found


class View:
    """A drafter made of a law; counts its forwards."""

    vocab = VOCAB

    def __init__(self, law: Law) -> None:
        self.law, self.scored, self.levels = law, [], 0  # type: ignore[var-annotated]

    def grow(self, topology: Topology, depth: int) -> None:
        raise NotImplementedError

    def finish(self, topology: Topology) -> DraftTree:
        raise NotImplementedError

    def score(
        self, parents: Sequence[int], tokens: np.ndarray, count: int, temperature: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        self.levels += 1
        law = tempered(self.law, temperature)
        above = list(self.scored)
        self.scored += [(*above[p], int(t)) for p, t in zip(parents, tokens, strict=True)] if above else [()]
        children = [best(law, context)[:count] for context in self.scored[len(above) :]]
        return np.array([[t for t, _ in row] for row in children]), np.array([[v for _, v in row] for row in children])

    def compose(self, topology: Topology, tokens: np.ndarray, log_probs: np.ndarray, turns: Sequence[int]) -> DraftTree:
        for node, turn in enumerate(turns, start=1):
            if turn >= 0:
                assert self.scored[turn][-1] == tokens[node - 1]
        inner = {node for node, kids in enumerate(topology.children) if kids and node}
        assert inner <= {node for node, turn in enumerate(turns, start=1) if turn >= 0}
        return DraftTree(topology, [0, *tokens.tolist()])


@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.integers(1, 24),
    st.integers(1, 5),
    st.integers(1, VOCAB + 2),
    st.sampled_from([0, 0.01, 0.1, 0.25, 0.125]),
    st.sampled_from([1.0, 0.9, 0.5, 0.01]),
)
def test_the_best_nodes_in_their_order(
    seed: int, coarse: bool, n: int, max_depth: int, max_children: int, min_prob: float, top_p: float
) -> None:
    law = law_of(seed, coarse)
    view = View(law)
    limits = {"max_depth": max_depth, "max_children": max_children, "min_prob": min_prob, "candidate_top_p": top_p}
    tree = BestFirst(**limits).at(n).expand(view)
    expected = by_hand(law, n, max_depth, max_children, min_prob, top_p)
    assert list(zip(tree.topology.paths[1:], tree.token_list()[1:], strict=True)) == expected
    assert view.levels <= min(n, max_depth)


@given(st.integers(0, 10**6), st.integers(1, 24), st.sampled_from([0.3, 0.7, 2.5]))
def test_calibrated_scores_rank_by_the_probabilities_at_the_temperature(seed: int, n: int, temperature: float) -> None:
    law = law_of(seed, False)
    shape = BestFirst(scores="calibrated", temperature=temperature, max_depth=4)
    tree = shape.at(n).expand(View(law))
    expected = by_hand(tempered(law, temperature), n, 4, 16, 0)
    assert list(zip(tree.topology.paths[1:], tree.token_list()[1:], strict=True)) == expected


def test_calibrated_scores_wait_for_their_temperature() -> None:
    shape = BestFirst(scores="calibrated")
    assert shape.fits_scores and shape.label == "best_first-calibrated"
    plan = shape.at(4)
    assert plan.temperature is None and plan.at_temperature(0.5).temperature == 0.5
    assert BestFirst(scores="calibrated", temperature=0.5, max_depth=3).label == "best_first-calibrated-md3-t0.5"
    assert BestFirst().at(4).temperature == 1 and not BestFirst().fits_scores


def test_candidate_filters() -> None:
    filtered = BestFirst(candidate_top_k=2, candidate_top_p=0.5)
    assert filtered.label == "best_first-topk2-topp0.5"
    assert (filtered.at(9).max_children, filtered.at(9).top_p, filtered.limits(9).width) == (2, 0.5, 2)
    assert BestFirst(candidate_top_k=99).at(9).max_children == 16
    plain = {"kind", "max_depth", "max_children", "min_prob"}
    assert BestFirst().identity().keys() == plain  # named as before there were scores and filters
    assert BestFirst(scores="calibrated").identity().keys() == plain | {"scores"}
    assert filtered.identity().keys() == plain | {"candidate_top_k", "candidate_top_p"}


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        (BestFirst(scores="calibratd"), "tree.scores=calibratd is not known; did you mean 'calibrated'"),
        (BestFirst(candidate_top_k=-1), "tree.candidate_top_k=-1 is out of range; expected 1 or more, or 0"),
        (BestFirst(candidate_top_p=0.0), "tree.candidate_top_p=0.0 is out of range; expected above 0, at most 1"),
        (BestFirst(candidate_top_p=1.5), "tree.candidate_top_p=1.5 is out of range"),
        (BestFirst(temperature=0.5), "tree.temperature=0.5 goes with tree.scores=calibrated, not with raw"),
        (BestFirst(scores="calibrated", temperature=0.0), "tree.temperature=0.0 is out of range; expected a number"),
        (BestFirst(scores="calibrated", temperature=float("nan")), "tree.temperature=nan is out of range"),
    ],
)
def test_scores_that_cannot_be_meant(shape: BestFirst, line: str) -> None:
    with pytest.raises(ConfigError, match=line.replace("(", r"\(")):
        shape.limits(4)


def grown(laws: Sequence[Law], nodes: int, some: Callable[[Growth], np.ndarray]) -> Growth:
    """A tree of each law; `some` chooses what is expanded next."""
    growth = Growth(len(laws), nodes, 3, 4)
    contexts = {root: (root,) for root in range(len(laws))}  # node -> its root, then its tokens
    while len(growth.frontier):
        expanded = some(growth)
        above = growth.nodes_at(expanded)
        for number, parent, token in zip(expanded.tolist(), above.parent.tolist(), above.token.tolist(), strict=True):
            if parent >= 0:
                contexts[number] = (*contexts[parent], token)
        rows = [best(laws[contexts[n][0]], contexts[n][1:])[:4] for n in expanded.tolist()]
        children = np.array([[t for t, _ in row] for row in rows]), np.array([[v for _, v in row] for row in rows])
        growth.add(*children, expanded)
    return growth


def level_by_level(growth: Growth) -> np.ndarray:
    return growth.frontier


def nearest(growth: Growth) -> np.ndarray:
    """Of each tree the nodes that are least likely to fall out."""
    return growth.frontier if growth.frontier[0] == 0 else growth.frontier[growth.place == growth.place.min()]


@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 4), st.sampled_from(["levels", "nearest", "any"]))
def test_trees_of_several_roots_do_not_mix(seed: int, coarse: bool, roots: int, order: str) -> None:
    """Whatever is expanded first."""
    laws, rng = [law_of(seed + i, coarse) for i in range(roots)], np.random.default_rng(seed)

    def any_of(growth: Growth) -> np.ndarray:
        count = len(growth.frontier) if growth.frontier[0] == 0 else rng.integers(1, len(growth.frontier) + 1)
        return np.sort(rng.choice(growth.frontier, count, replace=False))

    growth = grown(laws, 9, {"levels": level_by_level, "nearest": nearest, "any": any_of}[order])
    if order == "nearest" and not coarse:  # equals are expanded that the order of levels tells apart
        assert sum(growth.fed) <= sum(grown(laws, 9, level_by_level).fed)
    trees = growth.trees()
    for root, law in enumerate(laws):
        size = trees.sizes[root]
        parent, rank, token = (field[root, :size].tolist() for field in (trees.parent, trees.rank, trees.token))
        assert (trees.parent[root, size:] == -1).all()
        topology = Topology([-1, *parent], [0, *rank])
        assert list(zip(topology.paths[1:], token, strict=True)) == by_hand(law, 9, 3, 4, 0)


def test_a_smaller_tree_is_a_prefix() -> None:
    law = law_of(3, False)
    trees = [BestFirst().at(n).expand(View(law)).topology.paths for n in range(1, 40)]
    for smaller, larger in pairwise(trees):
        assert larger[: len(smaller)] == smaller


def test_a_tree_can_be_smaller_than_its_budget() -> None:
    assert BestFirst(max_depth=1).at(64).expand(View(law_of(1, False))).num_nodes == VOCAB
    few = BestFirst(min_prob=0.2).at(64).expand(View(law_of(1, False)))
    assert 0 < few.num_nodes < 10
    assert BestFirst(min_prob=0.999).at(64).expand(View(law_of(1, False))).num_nodes == 0


def test_a_node_exactly_at_the_threshold_stays() -> None:
    def law(context: tuple[int, ...]) -> np.ndarray:
        return np.log([0.5, 0.25, 0.125, 0.0625, 0.0625])

    for min_prob, nodes in ((0.5, 1), (0.25, 3), (0.2501, 1)):
        assert BestFirst(min_prob=min_prob).at(64).expand(View(law)).num_nodes == nodes


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_depth", 0), ("max_children", 0), ("min_prob", -0.1), ("min_prob", 1.0), ("min_prob", float("nan"))],
)
def test_parameters_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"tree\.{name}={value} is out of range for best_first"):
        BestFirst(**{name: value}).at(4)


def test_the_label() -> None:
    assert BestFirst().label == "best_first"
    assert BestFirst(max_depth=4, min_prob=0.01).label == "best_first-md4-mp0.01"
