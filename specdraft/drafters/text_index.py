"""Where every stretch of a growing text stood before, and how often: a suffix automaton that can take tokens back.

Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text": a state stands for all stretches that
end at the same places. It has at most 2 n states after n tokens, and a token costs amortised O(1) steps. Counts are
kept of stretches of limited length only: so a token adds to at most so many of them, however long the text is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

ROOT = 0  # the empty stretch

ROUNDING = 1e-9  # of a share of a count


class TextEnd(NamedTuple):
    """The ends of a text that one state stands for: those of `shortest` to `longest` tokens."""

    state: int
    shortest: int
    longest: int


class _Added(NamedTuple):
    """What a token changed: enough to take it back."""

    last: int
    deep: int
    entered: list[int]  # states that got a transition by the token
    redirected: list[int]  # states whose transition by the token leads to the copy now
    copied: int  # the state that was split, or -1
    counted: list[int]


class TextIndex:
    """A text, and every stretch of it.

    Args:
        longest: tokens of the longest stretch that is counted, or asked for as an end of the text.

    Attributes:
        tokens: the text.
        count: `[states]` how often a stretch stood in the text, of stretches of at most `longest` tokens.
        first: `[states]` tokens up to the end of its first occurrence.
        following: `[states]` token -> the state of the stretch with this token behind it.
        work: elementary changes so far.
    """

    def __init__(self, longest: int) -> None:
        self._most = longest
        self.tokens: list[int] = []
        self.count, self.first, self.work = [0], [0], 0
        self.following: list[dict[int, int]] = [{}]
        self._link, self._length = [-1], [0]
        self._last = self._deep = ROOT  # the whole text; its end of at most `longest` tokens
        self._added: list[_Added] = []

    def read(self, tokens: Iterable[int]) -> None:
        """The text goes on, for good."""
        for token in tokens:
            self.push(token)
        self._added.clear()

    def push(self, token: int) -> None:
        """One token more."""
        self.tokens.append(token)
        last, deep, whole = self._last, self._deep, self._new_state({}, len(self.tokens), len(self.tokens))
        entered, state = [], last
        while state >= 0 and token not in self.following[state]:
            self.following[state][token] = whole
            entered.append(state)
            state = self._link[state]
        redirected: list[int] = []
        below = self.following[state][token] if state >= 0 else ROOT
        split = state >= 0 and self._length[below] != self._length[state] + 1
        copy = self._split(below, state, token, redirected) if split else below
        self._link[whole], self._last = copy, whole
        counted = self._count_ends(self.following[self._deep][token], token)
        self._added.append(_Added(last, deep, entered, redirected, below if split else -1, counted))
        self.work += 1 + len(entered) + len(redirected) + len(counted)

    def pop(self) -> None:
        """Take the last token back, of those that were not read for good."""
        added, token = self._added.pop(), self.tokens.pop()
        for state in added.counted:
            self.count[state] -= 1
        for state in added.redirected:
            self.following[state][token] = added.copied
        for state in added.entered:
            del self.following[state][token]
        if added.copied >= 0:
            self._link[added.copied] = self._link[-1]
            self._remove_state()
        self._remove_state()
        self._last, self._deep = added.last, added.deep

    @property
    def pending(self) -> int:
        """How many tokens can be taken back."""
        return len(self._added)

    def ends(self) -> Iterator[TextEnd]:
        """The ends of the text of at most `longest` tokens, the longest first."""
        return self.shorter(self._deep, min(len(self.tokens), self._most))

    def after(self, state: int, token: int, length: int) -> tuple[int, int]:
        """Follow another text: the state of its longest end that stands in this one, and that end's length.

        Args:
            state, length: the same before the token.
            token: what the other text has next.
        """
        while state != ROOT and token not in self.following[state]:
            state = self._link[state]
            length = self._length[state]
        below = self.following[state].get(token, ROOT)
        if below == ROOT:
            return ROOT, 0
        return self.shortened(below, length + 1)

    def shortened(self, state: int, length: int) -> tuple[int, int]:
        """A stretch of so many tokens in a state, as one of at most `longest`: its end."""
        length = min(length, self._most)
        while self._length[self._link[state]] >= length:
            state = self._link[state]
        return state, length

    def shorter(self, state: int, length: int) -> Iterator[TextEnd]:
        """The ends of a stretch of `length` tokens, which is in a state, the longest first."""
        while state != ROOT:
            below = self._length[self._link[state]]
            yield TextEnd(state, below + 1, length)
            state, length = self._link[state], below

    def _new_state(self, following: dict[int, int], length: int, first: int, count: int = 0) -> int:
        self.following.append(following)
        self._length.append(length)
        self.first.append(first)
        self.count.append(count)
        self._link.append(ROOT)
        return len(self._length) - 1

    def _remove_state(self) -> None:
        for column in (self.following, self._length, self.first, self.count, self._link):
            column.pop()

    def _split(self, below: int, state: int, token: int, redirected: list[int]) -> int:
        """The shorter stretches of `below` end at one place more from now on: they move to a state of their own."""
        following, length = dict(self.following[below]), self._length[state] + 1
        copy = self._new_state(following, length, self.first[below], self.count[below])
        self._link[copy], self._link[below] = self._link[below], copy
        while state >= 0 and self.following[state].get(token) == below:
            self.following[state][token] = copy
            redirected.append(state)
            state = self._link[state]
        self.work += len(following)
        return copy

    def _count_ends(self, state: int, token: int) -> list[int]:
        """All counted ends of the text stand once more."""
        longest = min(len(self.tokens), self._most)
        if self._length[self._link[state]] >= longest:
            state = self._link[state]
        self._deep = state
        counted = [end.state for end in self.ends()]
        for state in counted:
            self.count[state] += 1
        return counted


class Continuation(NamedTuple):
    """A node of the trie of what followed a stretch.

    Attributes:
        parent: its place in the order of the nodes, from 1; 0 is the stretch itself.
        rank: among its siblings.
        token: what follows.
        times: how often.
    """

    parent: int
    rank: int
    token: int
    times: int


class TrieLimits(NamedTuple):
    """Of a trie: `nodes`, `depth`, `children` of one node, at most; `least`: the count of a node, at least."""

    nodes: int
    depth: int
    children: int = 1
    least: float = 0.0


def continuations(
    index: TextIndex, state: int, limits: TrieLimits, left_out: frozenset[int] = frozenset()
) -> list[Continuation]:
    """The nodes of the trie of what followed a stretch that are the most frequent ones; equals: as their tokens from
    the stretch down sort, so parents come first, and trees of fewer nodes are the beginning of larger ones.

    Args:
        index: the text.
        state: of the stretch.
        limits: with `depth`, no node is a stretch longer than `index` counts.
        left_out: tokens that nothing is continued by.
    """
    found: list[Continuation] = []
    heap: list[tuple[int, tuple[int, ...], int, int, int]] = []

    def consider(above: int, path: tuple[int, ...], place: int) -> None:
        if len(path) < limits.depth:
            for rank, (token, below) in enumerate(by_count(index, above, left_out)[: limits.children]):
                if index.count[below] >= limits.least:
                    heapq.heappush(heap, (-index.count[below], (*path, token), place, rank, below))

    consider(state, (), 0)
    while heap and len(found) < limits.nodes:
        count, path, place, rank, below = heapq.heappop(heap)
        found.append(Continuation(place, rank, path[-1], -count))
        consider(below, path, len(found))
    return found


def by_count(index: TextIndex, state: int, left_out: frozenset[int] = frozenset()) -> Sequence[tuple[int, int]]:
    """Tokens that followed a stretch, and their states: the most frequent first, then the lowest token. Tokens below
    0, which part texts from one another, follow nothing."""
    seen = ((token, below) for token, below in index.following[state].items() if token >= 0 and token not in left_out)
    return sorted(seen, key=lambda child: (-index.count[child[1]], child[0]))
