from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.random_trees import topologies

from specdraft.errors import ConfigError
from specdraft.trees.export import SglangTriple, medusa_choices, medusa_topk, sglang_triple
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.published import Published, published_trees
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import RankPath, Topology

SKIPPING = Topology.from_paths([(1,), (1, 2), (0,)])


def sglang_tree(triple: SglangTriple, seed: int) -> set[RankPath]:
    """What SGLang verifies (its top-k of each step, then the best candidates of all) with these random draft
    probabilities."""
    steps, topk, tokens = triple
    rng = np.random.default_rng(seed)
    candidates: list[tuple[RankPath, float]] = []
    beam: list[tuple[RankPath, float]] = [((), 1.0)]
    for _ in range(steps):
        made = []
        for path, score in beam:
            probs = sorted(rng.dirichlet(np.full(topk + 3, 0.5)).tolist(), reverse=True)
            made += [((*path, rank), score * probs[rank]) for rank in range(topk)]
        candidates += made
        beam = sorted(made, key=lambda one: -one[1])[:topk]
    return {path for path, _ in sorted(candidates, key=lambda one: -one[1])[: tokens - 1]}


@pytest.mark.parametrize(
    ("topology", "triple"),
    [
        (Chain().at(1).topology, (1, 1, 2)),
        (Chain().at(30).topology, (30, 1, 31)),
        (Wide().at(5).topology, (1, 5, 6)),
        (Kary().at(6).topology, (2, 2, 7)),
        (Kary(k=4).at(20).topology, (2, 4, 21)),
        (Published(name="eagle_3ad7869/chain5").at(1).topology, (5, 1, 6)),
        (Published(name="hydra/single").at(1).topology, (1, 1, 2)),
    ],
)
def test_sglang_drafts_this_tree_whatever_the_probabilities(topology: Topology, triple: tuple[int, int, int]) -> None:
    assert sglang_triple(topology) == triple
    assert all(sglang_tree(SglangTriple(*triple), seed) == set(topology.paths[1:]) for seed in range(20))


@pytest.mark.parametrize(
    ("topology", "why"),
    [
        (Kary().at(5).topology, "picks 5 of the 6 nodes"),
        (Kary().at(7).topology, "with 2 children of the root it expands the 2 most probable nodes"),
        (Kary().at(14).topology, "with 2 children of the root"),
        (Topology.from_paths([(1,)]), "child rank 1; with a top-k of 1"),
        (Topology.from_paths([(0,), (0, 1)]), "child rank 1"),
        (Topology.from_paths([(0,), (0, 0), (0, 1)]), "child rank 1"),
        (SKIPPING, "child rank 2"),
        *(
            (Published(name=name).at(1).topology, "children of the root")
            for name in ("medusa/mc_sim_7b_63", "eagle/mc_sim_7b_63")
        ),
    ],
)
def test_sglang_chooses_by_the_text(topology: Topology, why: str) -> None:
    with pytest.raises(ConfigError, match=f"SGLang cannot .*{why}.*; it can draft a chain of best tokens, "):
        sglang_triple(topology)


@given(topologies(max_nodes=7).filter(lambda topology: topology.num_nodes > 0), st.integers(0, 99))
@example(Kary().at(6).topology, 0)
@example(Chain().at(4).topology, 0)
def test_a_triple_exists_exactly_where_sglang_has_no_choice(topology: Topology, seed: int) -> None:
    paths = set(topology.paths[1:])
    settings = product(range(1, topology.depth + 2), range(1, int(topology.ranks.max()) + 2))
    fixed = [
        triple
        for steps, topk in settings
        if (triple := SglangTriple(steps, topk, len(paths) + 1))
        and all(sglang_tree(triple, seed + i) == paths for i in range(40))
    ]
    if fixed:
        assert sglang_triple(topology) in fixed
    else:
        with pytest.raises(ConfigError):
            sglang_triple(topology)


def test_medusa_choices_skip_ranks() -> None:
    assert medusa_choices(SKIPPING) == [[0], [1], [1, 2]]


@pytest.mark.parametrize("name", published_trees())
def test_medusa_choices_of_published_trees(name: str) -> None:
    paths = published_trees()[name]["paths"]
    choices = medusa_choices(Published(name=name).at(1).topology)
    assert choices == sorted(paths, key=lambda path: (len(path), path))


def test_medusa_topk() -> None:
    assert [medusa_topk(Wide().at(nodes).topology) for nodes in (1, 10, 11)] == [10, 10, 11]
