from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdraft.drafters.base import Prefilled, RecordedText
from specdraft.drafters.pair import load_pair
from specdraft.drafters.suffix import Suffix, SuffixDrafter
from specdraft.errors import ConfigError
from specdraft.trees.shapes import StaticPlan
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.topology import Topology

TEXT = st.lists(st.integers(0, 2), min_size=1, max_size=25)
EARLIER = st.lists(TEXT, max_size=3)
Drafted = list[tuple[int, ...]]  # paths of tokens below the text's end


def times(texts: list[list[int]], stretch: list[int]) -> int:
    size = len(stretch)
    return sum(text[i : i + size] == stretch for text in texts for i in range(len(text) - size + 1))


def grown(
    texts: list[list[int]], match: list[int], most: int, depth: int, least: float, path_only: bool
) -> tuple[Drafted, float]:
    """The priority queue of the published description: the most probable node next, its children behind it."""
    found: Drafted = []
    queue: list[tuple[float, tuple[int, ...]]] = []

    def consider(path: tuple[int, ...]) -> None:
        below = [(-times(texts, [*match, *path, token]), (*path, token)) for token in range(3)]
        there = sorted(child for child in below if child[0] < 0)[: 1 if path_only else None]
        if len(path) < depth:
            for child in there:
                if -child[0] / times(texts, match) >= least - 1e-12:
                    heapq.heappush(queue, child)

    consider(())
    while queue and len(found) < most:
        found.append(heapq.heappop(queue)[1])
        consider(found[-1])
    return found, sum(times(texts, [*match, *path]) / times(texts, match) for path in found)


def drafted(spec: Suffix, text: list[int], earlier: list[list[int]], budget: int, path_only: bool) -> Drafted:
    """Every match length, from the shortest; the local text before the others."""
    best: tuple[Drafted, float] = [], 0.0
    for texts in ([text], earlier):
        of_texts: tuple[Drafted, float] = [], 0.0
        for size in range(1, min(len(text), spec.max_depth)):
            match = text[len(text) - size :]
            if not times(texts, match):
                break
            room = max(0, min(budget, int(size * spec.factor + spec.offset + 1e-6)))
            given_draft = grown(texts, match, room, spec.max_depth - size, spec.min_token_prob, path_only)
            if given_draft[1] >= of_texts[1] - 1e-12 and given_draft[1] > 0:
                of_texts = given_draft
        if of_texts[1] > best[1] + 1e-12:
            best = of_texts
    return best[0]


SPECS = st.builds(
    Suffix,
    max_depth=st.integers(2, 8),
    factor=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    offset=st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
    min_token_prob=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
)


def tokens_by_path(spec: Suffix, text: list[int], earlier: list[list[int]], plan: object) -> Drafted:
    drafter = SuffixDrafter(spec, frozenset())
    drafter.begin(Prefilled(text[: len(text) // 2], earlier=earlier))
    for token in (2, 0, 2):
        drafter._reader.push(token)
    drafter.rewind()
    for token in text[len(text) // 2 : -1]:
        drafter._reader.push(token)
    tree = drafter.draft(text[-1], plan)  # type: ignore[arg-type]
    paths: Drafted = [()]
    for node, token in enumerate(tree.token_list()[1:], start=1):
        paths.append((*paths[tree.topology.parents[node]], token))
    return paths[1:]


@given(TEXT, EARLIER, SPECS, st.integers(1, 12))
def test_path_and_tree_are_those_of_the_description(
    text: list[int], earlier: list[list[int]], spec: Suffix, budget: int
) -> None:
    """On random texts over three tokens, so that matches overlap, and end on one another."""
    tree = BestFirst(max_depth=20, max_children=20).at(budget)
    assert tokens_by_path(spec, text, earlier, tree) == drafted(spec, text, earlier, budget, path_only=False)
    assert tokens_by_path(spec, text, earlier, Chain().at(budget)) == drafted(spec, text, earlier, budget, True)


@given(TEXT, EARLIER, SPECS)
def test_the_best_child_of_a_node_is_what_a_budget_of_one_drafts(
    text: list[int], earlier: list[list[int]], spec: Suffix
) -> None:
    wide = StaticPlan(Topology.from_paths([(0,), (1,), (2,)]))
    children = [path[0] for path in tokens_by_path(spec, text, earlier, wide)]
    assert children[:1] == [path[0] for path in drafted(spec, text, earlier, 1, path_only=True)]
    assert len(set(children)) == len(children)


def test_of_equal_scores_the_longer_match_and_then_the_text_itself() -> None:
    """1 of 2 after two tokens, 2 of 4 after one; 1 of 2 in an earlier text."""
    text = [1, 2, 3, 0, 2, 4, 5, 2, 4, 1, 2]
    assert tokens_by_path(Suffix(), text, [], Chain().at(1)) == [(3,)]
    assert tokens_by_path(Suffix(), [1, 2, 3, 1, 2], [[9, 2, 4, 2]], Chain().at(1)) == [(3,)]
    assert tokens_by_path(Suffix(), [1, 2, 3, 1, 2], [[9, 2, 4]], Chain().at(1)) == [(4,)]


def test_budgets_are_not_nested() -> None:
    """Two tokens of the longer match (1/3 each) are worth more than one of the shorter (3/5), one of them less."""
    text = [2, 2, 2, 0, 2, 2]
    assert tokens_by_path(Suffix(), text, [], Chain().at(1)) == [(2,)]
    assert tokens_by_path(Suffix(), text, [], Chain().at(2)) == [(0,), (0, 2)]


def test_earlier_texts_are_read_once_in_their_order() -> None:
    drafter = SuffixDrafter(Suffix(earlier=True), frozenset())
    drafter.begin(Prefilled([5], earlier=[[6, 7]]))
    assert drafter.draft(6, Chain().at(1)).token_list() == [6, 7]
    index = drafter._others.index if drafter._others else None
    drafter.begin(Prefilled([5], earlier=[[6, 7], [6, 8, 6, 8]]))
    assert drafter._others is not None and drafter._others.index is index
    assert drafter.draft(6, Chain().at(1)).token_list() == [6, 8]
    drafter.begin(Prefilled([5], earlier=[[6, 9]]))
    assert drafter._others.index is not index
    assert drafter.draft(6, Chain().at(1)).token_list() == [6, 9]
    drafter.begin(Prefilled([5]))
    assert drafter.draft(6, Chain().at(1)).num_nodes == 0


def test_texts_side_by_side_read_their_own_earlier_ones() -> None:
    one = SuffixDrafter(Suffix(earlier=True), frozenset())
    one.begin(Prefilled([5], earlier=[[6, 7]]))
    other = one.another(lambda model: model)
    other.begin(Prefilled([5], earlier=[[6, 7], [6, 8, 6, 8]]))
    assert other.draft(6, Chain().at(1)).token_list() == [6, 8]
    assert one.draft(6, Chain().at(1)).token_list() == [6, 7]


def test_ranks_do_not_depend_on_earlier_texts() -> None:
    """They are stored for a text, whatever was read before it."""
    drafter, text = SuffixDrafter(Suffix(earlier=True), frozenset()), RecordedText([6], np.array([6, 6, 7]))
    drafter.begin(Prefilled([6], earlier=[[6, 7]]))
    assert drafter.annotate([text])[0].ranks.tolist() == [-1, 0, -1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Suffix(factor=-1.0), r"drafter\.factor=-1\.0 is out of range; expected a number, 0 or more"),
        (Suffix(factor=float("nan")), r"drafter\.factor=nan"),
        (Suffix(offset=float("inf")), r"drafter\.offset=inf"),
        (Suffix(min_token_prob=1.5), r"drafter\.min_token_prob=1\.5 is out of range; expected 0 to 1"),
        (Suffix(max_depth=1), r"drafter\.max_depth=1 is out of range; expected 2 or more"),
    ],
)
def test_parameters_out_of_range(spec: Suffix, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec.check()


def test_there_are_no_weights() -> None:
    with pytest.raises(ConfigError, match=r"drafter\.path=here: drafter=suffix has no weights"):
        load_pair("zoo", Suffix(path="here"))
