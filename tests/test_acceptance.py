from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from conftest import topologies
from hypothesis import assume, given
from hypothesis import strategies as st

from specdraft.acceptance import Greedy, registry
from specdraft.draft_tree import DraftTree, Topology
from specdraft.records import Accepted
from specdraft.sampling import Sampling, standardise

VOCAB = 6


@st.composite
def verified_trees(draw: st.DrawFn) -> tuple[DraftTree, list[list[int]]]:
    """A tree whose siblings differ in their tokens, and target scores with many equals, `[n + 1][vocab]`."""
    topology = draw(topologies(max_nodes=10))
    tokens = [draw(st.integers(0, VOCAB - 1))] + [0] * topology.num_nodes
    for children in topology.children:
        assume(len(children) <= VOCAB)
        distinct = draw(st.permutations(range(VOCAB)))
        for child, token in zip(children, distinct, strict=False):
            tokens[child] = token
    rows = draw(st.lists(st.lists(st.integers(0, 2), min_size=VOCAB, max_size=VOCAB), min_size=len(tokens), max_size=len(tokens)))
    for node in range(1, len(tokens)):
        if draw(st.integers(0, 2)):
            rows[topology.parents[node]][tokens[node]] = 3
    return DraftTree(topology, tokens), rows


def by_definition(tree: DraftTree, rows: list[list[int]]) -> Accepted:
    """The longest path on which each token is the target's best (lowest id among equals) after its parent."""
    best = [min(range(VOCAB), key=lambda token, row=row: (-row[token], token)) for row in rows]
    tokens, parents = tree.token_list(), tree.topology.parents.tolist()
    wanted = [True] + [tokens[n] == best[parents[n]] for n in range(1, len(tree))]
    paths = [[n for n in range(len(tree)) if row[n]] for row in tree.topology.ancestors]
    longest = max((path for path in paths if all(wanted[n] for n in path)), key=len)
    return Accepted(longest[1:], [tokens[n] for n in longest[1:]], best[longest[-1]])


@given(verified_trees())
def test_greedy_accepts_what_its_definition_says(case: tuple[DraftTree, list[list[int]]]) -> None:
    tree, rows = case
    logits = torch.tensor(rows, dtype=torch.float32)
    assert Greedy().accept(tree, standardise(logits, Sampling())) == by_definition(tree, rows)
    assert Greedy().accept(tree, torch.softmax(logits, -1)) == by_definition(tree, rows)


@given(verified_trees())
def test_adding_a_node_never_lowers_what_greedy_accepts(case: tuple[DraftTree, list[list[int]]]) -> None:
    tree, rows = case
    probs = torch.tensor(rows, dtype=torch.float32)
    accepted = []
    for nodes in range(1, len(tree) + 1):
        topology = Topology(tree.topology.parents[:nodes], tree.topology.ranks[:nodes])
        accepted.append(Greedy().accept(DraftTree(topology, tree.token_list()[:nodes]), probs[:nodes]).nodes)
    assert all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(accepted))


@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_an_example_by_hand(kind: type) -> None:
    tree = DraftTree(Topology([-1, 0, 0, 2, 2, 4]), kind([0, 1, 2, 3, 4, 5]))
    probs = torch.eye(VOCAB)[[2, 0, 4, 0, 1, 0]]
    assert Greedy().accept(tree, probs) == Accepted([2, 4], [2, 4], 1)
    assert Greedy().accept(tree, torch.eye(VOCAB)[[3, 0, 4, 0, 1, 0]]) == Accepted([], [], 3)
    assert Greedy().accept(tree, torch.eye(VOCAB)[[2, 0, 4, 0, 5, 0]]) == Accepted([2, 4, 5], [2, 4, 5], 0)


def test_a_bare_root_gives_the_bonus_token_only() -> None:
    assert Greedy().accept(DraftTree(Topology([-1]), [3]), torch.eye(VOCAB)[[5]]) == Accepted([], [], 5)


def test_the_decision_is_in_plain_integers() -> None:
    accepted = Greedy().accept(DraftTree(Topology([-1, 0]), torch.tensor([0, 1])), torch.eye(VOCAB)[[1, 2]])
    assert [type(x) for x in (*accepted.nodes, *accepted.tokens, accepted.bonus)] == [int] * 3


def test_greedy_is_registered_as_lossless() -> None:
    assert registry()["greedy"] is Greedy
    assert Greedy.lossless


def test_the_greedy_distribution_is_one_hot_at_the_lowest_id_of_the_best() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0], [-1.0, -3.0, -1.0], [-0.0, 0.0, -1.0]])
    assert standardise(logits, Sampling()).tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]
