from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdraft.drafters.text_index import TextIndex, TrieLimits, continuations

TEXTS = st.lists(st.integers(0, 2), max_size=24)


def occurrences(text: list[int], stretch: list[int]) -> list[int]:
    """Where a stretch ends."""
    size = len(stretch)
    return [end for end in range(size, len(text) + 1) if text[end - size : end] == stretch]


def state_of(index: TextIndex, stretch: list[int]) -> int:
    state = 0
    for token in stretch:
        state = index.following[state][token]
    return state


def said(index: TextIndex) -> list[tuple[list[int], int, int]]:
    """Count and first end of every counted stretch, asked of the index."""
    text, longest = index.tokens, index._most
    stretches = {tuple(text[i : i + size]) for size in range(1, longest + 1) for i in range(len(text) - size + 1)}
    states = [(list(stretch), state_of(index, list(stretch))) for stretch in sorted(stretches)]
    return [(stretch, index.count[state], index.first[state]) for stretch, state in states]


def counted(text: list[int], longest: int) -> list[tuple[list[int], int, int]]:
    """The same by searching the text."""
    stretches = {tuple(text[i : i + size]) for size in range(1, longest + 1) for i in range(len(text) - size + 1)}
    ends = [(list(stretch), occurrences(text, list(stretch))) for stretch in sorted(stretches)]
    return [(stretch, len(found), found[0]) for stretch, found in ends]


@given(TEXTS, TEXTS, TEXTS, st.integers(1, 5))
def test_stretches_are_counted_while_the_text_grows_and_shrinks(
    kept: list[int], taken_back: list[int], more: list[int], longest: int
) -> None:
    index = TextIndex(longest)
    index.read(kept)
    for token in taken_back:
        index.push(token)
    assert said(index) == counted(kept + taken_back, longest)
    while index.pending:
        index.pop()
    assert index.tokens == kept
    for token in more:
        index.push(token)
    assert said(index) == counted(kept + more, longest)


@given(TEXTS, st.integers(1, 5))
def test_ends_of_the_text_are_the_states_of_its_last_tokens(text: list[int], longest: int) -> None:
    index = TextIndex(longest)
    index.read(text)
    states = {size: end.state for end in index.ends() for size in range(end.shortest, end.longest + 1)}
    assert states == {size: state_of(index, text[-size:]) for size in range(1, min(longest, len(text)) + 1)}


@given(TEXTS, TEXTS, st.integers(1, 5))
def test_another_text_is_followed_by_its_longest_end_that_stands_in_this_one(
    text: list[int], other: list[int], longest: int
) -> None:
    index = TextIndex(longest)
    index.read(text)
    state, length = 0, 0
    for end in range(1, len(other) + 1):
        state, length = index.after(state, other[end - 1], length)
        sizes = range(min(end, longest), 0, -1)
        expected = next((size for size in sizes if occurrences(text, other[end - size : end])), 0)
        assert length == expected
        assert state == state_of(index, other[end - length : end])
        ends = {size for found in index.shorter(state, length) for size in range(found.shortest, found.longest + 1)}
        assert ends == set(range(1, length + 1))


@given(TEXTS, st.integers(1, 12), st.integers(1, 4), st.integers(1, 3))
def test_the_most_frequent_continuations(text: list[int], nodes: int, depth: int, children: int) -> None:
    """All paths that may be there, sorted."""
    index = TextIndex(depth)
    index.read(text)
    paths: list[tuple[int, tuple[int, ...]]] = []
    level: list[tuple[int, ...]] = [()]
    for _ in range(depth):
        below = []
        for path in level:
            counts = {token: len(occurrences(text, [*path, token])) for token in range(3)}
            best = sorted((token for token in counts if counts[token]), key=lambda token: (-counts[token], token))
            below += [(*path, token) for token in best[:children]]
            paths += [(-counts[token], (*path, token)) for token in best[:children]]
        level = below
    found = continuations(index, 0, TrieLimits(nodes, depth, children))
    trees: list[tuple[int, ...]] = [()]
    for node in found:
        trees.append((*trees[node.parent], node.token))
    assert [(-node.times, path) for node, path in zip(found, trees[1:], strict=True)] == sorted(paths)[:nodes]


@pytest.mark.parametrize(
    "text",
    [
        lambda n: [7] * n,
        lambda n: [1, 2, 3] * (n // 3),
        lambda n: [i * i % 97 for i in range(n)],
        lambda n: [*range(n)],
    ],
    ids=["one token", "a loop", "residues", "all different"],
)
def test_a_token_costs_no_more_in_a_long_text(text: Callable[[int], list[int]]) -> None:
    """Counted in elementary changes: at most one for each counted end and a constant, whatever the length."""
    work = {}
    for length in (300, 3000):
        index = TextIndex(16)
        index.read(text(length))
        work[length] = index.work / length
    assert work[3000] < 1.1 * work[300] + 0.1
    assert work[3000] < 16 + 6
