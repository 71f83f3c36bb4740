from __future__ import annotations

import subprocess
import sys
from itertools import chain
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.random_trees import topologies
from support.tiny_models import random_model

from specdraft.errors import TreeError
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.topology import Topology

PARENTS = [-1, 0, 0, 1, 1, 2, 3]


def slow_path(topology: Topology, node: int) -> tuple[int, ...]:
    ranks: list[int] = []
    while node != 0:
        ranks.insert(0, int(topology.ranks[node]))
        node = int(topology.parents[node])
    return tuple(ranks)


def slow_ancestors(topology: Topology, node: int) -> set[int]:
    seen = {node}
    while node != 0:
        node = int(topology.parents[node])
        seen.add(node)
    return seen


@given(topologies())
def test_depths_paths_and_ancestors_are_those_of_a_walk_to_the_root(topology: Topology) -> None:
    for node in range(len(topology)):
        path = slow_path(topology, node)
        assert topology.paths[node] == path
        assert [topology.paths[above] for above in topology.path_to(node)] == [path[: d + 1] for d in range(len(path))]
        assert topology.depths[node] == len(path)
        assert set(np.flatnonzero(topology.ancestors[node]).tolist()) == slow_ancestors(topology, node)
    assert topology.depth == max(map(len, topology.paths))
    assert topology.num_nodes == len(topology) - 1


@given(topologies())
def test_children_are_listed_by_rank_and_each_node_is_a_child_once(topology: Topology) -> None:
    for node, children in enumerate(topology.children):
        assert all(topology.parents[child] == node for child in children)
        assert topology.ranks[children].tolist() == sorted(topology.ranks[children].tolist())
    assert sorted(chain.from_iterable(topology.children)) == list(range(1, len(topology)))


@given(topologies())
def test_levels_divide_the_nodes_by_depth_and_name_each_parent_once(topology: Topology) -> None:
    assert sorted(node for level in topology.levels for node in level.nodes.tolist()) == list(range(1, len(topology)))
    for depth, level in enumerate(topology.levels, start=1):
        assert set(topology.depths[level.nodes].tolist()) == {depth}
        assert level.parents.tolist() == sorted(set(topology.parents[level.nodes].tolist()))
        assert level.parents[level.parent_row].tolist() == topology.parents[level.nodes].tolist()
        assert level.ranks.tolist() == topology.ranks[level.nodes].tolist()


@given(topologies())
def test_chains_and_sibling_closure_are_what_their_names_say(topology: Topology) -> None:
    assert topology.is_chain == all(len(children) <= 1 for children in topology.children)
    listed = set(topology.paths)
    assert topology.sibling_closed == all(
        (*path[:-1], rank) in listed for path in listed if path for rank in range(path[-1])
    )


@given(topologies(), st.randoms(use_true_random=False))
def test_a_tree_is_its_set_of_paths_in_any_order(topology: Topology, random: Random) -> None:
    paths = topology.paths[1:]
    random.shuffle(paths)
    shuffled = Topology.from_paths(paths)
    assert shuffled == topology
    assert hash(shuffled) == hash(topology)
    assert shuffled.depths.tolist() == sorted(shuffled.depths.tolist())
    assert [p for p in shuffled.paths if len(p) == 1] == [p for p in paths if len(p) == 1]


@given(topologies().filter(lambda t: t.num_nodes > 0))
def test_trees_with_different_paths_differ(topology: Topology) -> None:
    assert topology != Topology(topology.parents[:-1], topology.ranks[:-1])
    assert topology != topology.paths


def test_ranks_left_out_are_the_listing_order_among_siblings() -> None:
    assert Topology(PARENTS).paths == [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    assert Topology(PARENTS).sibling_closed
    assert not Topology(PARENTS, [0, 0, 2, 0, 1, 0, 0]).sibling_closed


def test_a_bare_root_is_a_tree() -> None:
    root = Topology([-1])
    assert (root.num_nodes, root.depth, root.levels, root.paths) == (0, 0, [], [()])
    assert root == Topology.from_paths([])


@pytest.mark.parametrize(
    ("parents", "ranks", "message"),
    [
        ([], None, "needs a root"),
        ([0, 0], None, "needs a root"),
        ([[-1]], None, "needs a root"),
        ([-1, 1], None, "comes before it"),
        ([-1, 2, 0], None, "comes before it"),
        ([-1, -1], None, "comes before it"),
        ([-1, 0], [0], "one child rank"),
        ([-1, 0], [0, -1], "one child rank"),
        ([-1, 0, 0], [0, 1, 1], "same rank"),
    ],
)
def test_arrays_that_are_no_tree_are_refused(parents: list[int], ranks: list[int] | None, message: str) -> None:
    with pytest.raises(TreeError, match=message):
        Topology(parents, ranks)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([()], "is not a rank path"),
        ([(0, -1)], r"\[0, -1\] is not a rank path"),
        ([(0,), (0,)], r"\[0\] is listed twice"),
        ([(0, 1)], r"\[0, 1\] has no parent: \[0\] is not in the tree"),
        ([(0,), (1, 0), (1, 0, 0)], r"\[1, 0\] has no parent"),
    ],
)
def test_paths_that_are_no_tree_are_refused(paths: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(TreeError, match=message):
        Topology.from_paths(paths)


def test_a_draft_tree_has_one_token_for_each_node() -> None:
    with pytest.raises(TreeError, match="3 tokens for 2 nodes"):
        DraftTree(Topology([-1, 0]), [5, 6, 7])
    with pytest.raises(TreeError, match="1 tokens for 2 paths"):
        DraftTree.from_paths([(0,), (1,)], 5, [6])
    with pytest.raises(TreeError, match="listed twice"):
        DraftTree.from_paths([(0,), (0,)], 5, [6, 7])


def test_tokens_follow_their_paths_when_nodes_are_reordered() -> None:
    tree = DraftTree.from_paths([(1, 0), (0,), (1,)], root=9, tokens=[10, 11, 12])
    assert dict(zip(tree.topology.paths, tree.token_list(), strict=True)) == {(): 9, (0,): 11, (1,): 12, (1, 0): 10}


def test_a_tree_has_the_size_of_its_topology() -> None:
    tree = DraftTree(Topology(PARENTS), list(range(7)))
    assert tree.topology.depths.tolist() == [0, 1, 1, 2, 2, 2, 3]
    assert (tree.num_nodes, tree.depth, len(tree)) == (6, 3, 7)


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=6))
def test_merged_sequences_are_the_set_of_their_prefixes(sequences: list[list[int]]) -> None:
    tree = DraftTree.from_sequences(9, sequences)
    tokens = tree.token_list()
    spelled = [tuple(tokens[n] for n in np.flatnonzero(row)[1:]) for row in tree.topology.ancestors]
    assert len(set(spelled)) == len(tree)
    assert set(spelled) == {tuple(s[:end]) for s in sequences for end in range(len(s) + 1)} | {()}
    assert tokens[0] == 9
    assert tree.topology.sibling_closed


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=6))
def test_a_tree_grows_as_its_sequences_are_merged(sequences: list[list[int]]) -> None:
    growing = DraftTree.rooted(9)
    for end, sequence in enumerate(sequences, start=1):
        assert growing.add(sequence) is growing
        tree, merged = growing.build(), DraftTree.from_sequences(9, sequences[:end])
        assert len(growing) == len(tree) == len(merged)
        assert (tree.topology.paths, tree.token_list()) == (merged.topology.paths, merged.token_list())
        assert torch.equal(growing.attention_mask(), merged.attention_mask())


def test_shared_prefixes_are_shared_nodes() -> None:
    tree = DraftTree.rooted(7)
    tree.add([101, 202, 303])
    tree.add([101, 404])
    assert tree.build().token_list() == [7, 101, 202, 303, 404]
    assert tree.build().topology.parents.tolist() == [-1, 0, 1, 2, 1]
    assert tree.attention_mask().int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_what_was_built_stays_as_it_was() -> None:
    growing = DraftTree.rooted(7).add([1, 2])
    built, mask = growing.build(), growing.attention_mask()
    mask[:] = False
    growing.add([1, 3])
    assert (built.token_list(), built.num_nodes, len(growing)) == ([7, 1, 2], 2, 4)
    assert built.attention_mask().tolist() == [[True, False, False], [True, True, False], [True, True, True]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_additive_mask_hides_what_the_other_one_hides(dtype: torch.dtype) -> None:
    tree = DraftTree(Topology(PARENTS), list(range(7)))
    additive = tree.attention_mask(dtype)
    assert (additive.dtype, additive.shape) == (dtype, (7, 7))
    assert torch.equal(additive == 0, tree.attention_mask())
    assert (additive[~tree.attention_mask()] == torch.finfo(dtype).min).all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_mask_is_the_tail_of_a_4d_mask(attention: str) -> None:
    """One forward over prompt and tree gives each node the logits that its own sequence alone gives."""
    model, prompt = random_model("llama", attention), [3, 1, 4, 1, 5]
    tree = DraftTree.from_sequences(9, [[2, 6, 5], [2, 7], [8, 6]])
    tokens, length = [*prompt, *tree.token_list()], len(prompt)
    mask = torch.full((len(tokens), len(tokens)), torch.finfo(model.dtype).min).triu(1)
    mask[length:, length:] = tree.attention_mask(model.dtype)
    positions = [*range(length), *(length + tree.topology.depths).tolist()]
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor([tokens]), position_ids=torch.tensor([positions]), attention_mask=mask[None, None]
        ).logits[0, length:]
        for node, row in enumerate(tree.topology.ancestors):
            alone = [*prompt, *(tree.token_list()[above] for above in np.flatnonzero(row))]
            assert torch.allclose(logits[node], model(input_ids=torch.tensor([alone])).logits[0, -1], atol=1e-4)


@pytest.mark.parametrize("token", [-1, 1.0, "7", None])
def test_what_is_no_token_id_is_refused_and_nothing_is_added(token: Any) -> None:
    growing = DraftTree.rooted(7).add([1])
    with pytest.raises(TreeError, match="is not a token id; expected a whole number, 0 or more"):
        growing.add([1, 2, token])
    with pytest.raises(TreeError, match="is not a token id"):
        DraftTree.rooted(token)
    assert growing.build().token_list() == [7, 1]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_sequences_may_be_arrays_or_tensors(kind: Any) -> None:
    tree = DraftTree.from_sequences(kind(9), [kind([1, 2]), kind([1, 3])])
    assert tree.token_list() == [9, 1, 2, 3]
    assert all(type(token) is int for token in tree.tokens)


def test_a_tree_is_public_and_needs_no_torch_until_its_mask_is_asked_for() -> None:
    code = """
import sys
from specdraft import DraftTree
assert DraftTree.from_sequences(7, [[1, 2], [1, 3]]).num_nodes == 3
assert "torch" not in sys.modules
assert DraftTree.rooted(7).add([1]).attention_mask().tolist() == [[True, False], [True, True]]
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_tokens_of_any_kind_become_plain_integers(kind: type) -> None:
    tokens = DraftTree(Topology([-1, 0, 0]), kind([3, 4, 5])).token_list()
    assert tokens == [3, 4, 5]
    assert all(type(token) is int for token in tokens)
