"""What all drafters that read tokens only do alike, held against drafters that were never anywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_trees import topologies

from specdraft.drafters.base import Prefilled
from specdraft.drafters.from_text import TextDrafter
from specdraft.drafters.ngram import Ngram, NgramDrafter
from specdraft.drafters.suffix import Suffix, SuffixDrafter
from specdraft.trees.shapes import StaticPlan
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.topology import Topology

TEXT = st.lists(st.integers(0, 3), min_size=1, max_size=20)
SPECS = [*(Ngram(variant=variant) for variant in ("hf", "vllm", "original", "trie")), Suffix()]
STOPS = frozenset([0])


def fresh(spec: Ngram | Suffix, text: Sequence[int]) -> TextDrafter:
    drafter = NgramDrafter(spec, STOPS) if isinstance(spec, Ngram) else SuffixDrafter(spec, STOPS)
    drafter.begin(Prefilled(text))
    return drafter


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
@settings(max_examples=40)
@given(st.lists(st.integers(0, 2), min_size=8, max_size=24), st.just(Kary().at(14).topology) | topologies(max_nodes=8))
def test_every_node_is_looked_up_after_the_tokens_above_it(
    spec: Ngram | Suffix, text: list[int], topology: Topology
) -> None:
    if topology.is_span:
        return
    tree = fresh(spec, text[:-1]).draft(text[-1], StaticPlan(topology))
    tokens, drafted = tree.token_list(), dict(zip(tree.topology.paths, range(len(tree)), strict=True))
    above = {path: [tokens[node] for node in tree.topology.path_to(number)] for path, number in drafted.items()}
    for path in topology.paths:
        if path in drafted:
            proposed = fresh(spec, [*text, *above[path]])._reader.next_tokens(99)
            children = [child for child in topology.paths if child[:-1] == path and child]
            for child in children:
                assert (child in drafted) == (child[-1] < len(proposed))
                assert child not in drafted or tokens[drafted[child]] == proposed[child[-1]]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.label)
@settings(max_examples=40)
@given(TEXT, TEXT, st.integers(0, 4))
def test_a_step_later_it_has_read_what_was_accepted(
    spec: Ngram | Suffix, prompt: list[int], following: list[int], kept: int
) -> None:
    drafter = fresh(spec, prompt)
    tree = drafter.draft(following[0], Chain().at(4))
    accepted = list(range(1, min(kept, tree.num_nodes) + 1))
    drafter.commit(tree, accepted)
    text = [*prompt, following[0], *tree.token_list()[1 : len(accepted) + 1]]
    later = drafter.draft(following[-1], Chain().at(6))
    assert later.token_list() == fresh(spec, text).draft(following[-1], Chain().at(6)).token_list()
    drafter.rewind()
    assert drafter.draft(following[0], Chain().at(4)).token_list() == tree.token_list()


def test_one_sequence_that_is_not_of_best_children_is_looked_up() -> None:
    """After 1 the best child is 2; the second one, 3, was followed by 4."""
    text, plan = [1, 2, 2, 1, 3, 4, 1], StaticPlan(Topology.from_paths([(1,), (1, 0)]))
    assert fresh(Ngram(), text[:-1]).draft(1, plan).token_list() == [1, 3, 4]


def test_what_was_taken_back_is_not_followed_in_earlier_texts() -> None:
    drafter = SuffixDrafter(Suffix(), STOPS)
    drafter.begin(Prefilled([7] * 6, earlier=[[2, 0, 2, 1, 8], [1, 9], [1, 9]]))
    for token in (2, 0, 2):
        drafter._reader.push(token)
    drafter.rewind()
    assert drafter.draft(1, Chain().at(1)).token_list() == [1, 9]
