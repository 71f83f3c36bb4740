"""Suffix decoding (Oliaro et al. 2025): what followed the text's last tokens before, weighed by how often it did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import Any, ClassVar, NamedTuple, Self

from specdraft.drafters.base import DrafterSpec, DrafterTraits, RowOf, Target
from specdraft.drafters.from_text import Reader, TextDrafter, text_facts
from specdraft.drafters.text_index import (
    ROOT,
    ROUNDING,
    Continuation,
    TextIndex,
    TrieLimits,
    by_count,
    continuations,
)
from specdraft.errors import ConfigError
from specdraft.models.files import ModelFiles
from specdraft.trees.shapes import NestedPlan


@dataclass
class Suffix(DrafterSpec):
    """Of every match of the text's end, the continuation with the largest score, as ArcticInference drafts.

    A match of m tokens may draft `m * factor + offset` tokens, at most the budget. A token's probability is the share
    of the match's occurrences (the text's end among them) that went on to it; a draft's score is the sum of them, the
    tokens that it expects to be accepted. Equal scores: the longer match. A chain is the most frequent token again and
    again, a tree of its own the most frequent nodes; equal counts: the lower token first.

    Attributes:
        max_depth: tokens of a match and its continuation together, at most.
        factor, offset: how many tokens a match may draft.
        min_token_prob: the least probability of a drafted token.
        earlier: matches are also looked for in what the target made of the study's earlier prompts, in their order;
            a draft from there wins with a larger score only.
    """

    for_encoders: ClassVar[bool] = True
    kind: str = "suffix"
    max_depth: int = 64
    factor: float = 1.0
    offset: float = 0.0
    min_token_prob: float = 0.1
    earlier: bool = False

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`."""
        return DrafterTraits(
            probabilities=False,
            draws=False,
            copies=self.max_depth - 1,
            owns_weights=False,
            from_tokens=True,
            counts=True,
            earlier=self.earlier,
        )

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        if self.max_depth < 2:
            raise ConfigError(f"drafter.max_depth={self.max_depth} is out of range; expected 2 or more")
        if not (isfinite(self.factor) and self.factor >= 0):
            raise ConfigError(f"drafter.factor={self.factor} is out of range; expected a number, 0 or more")
        if not isfinite(self.offset):
            raise ConfigError(f"drafter.offset={self.offset} is out of range; expected a number")
        if not 0 <= self.min_token_prob <= 1:
            raise ConfigError(f"drafter.min_token_prob={self.min_token_prob} is out of range; expected 0 to 1")

    def load(self, weights: ModelFiles | None, target: Target) -> SuffixDrafter:
        """See `DrafterSpec.load`: there is nothing to load."""
        return SuffixDrafter(self, frozenset())

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any]:
        """See `DrafterSpec.facts`: nothing stops it."""
        return text_facts(self, ())


class SuffixDrafter(TextDrafter):
    """See `Suffix`."""

    _spec: Suffix
    _others: EarlierTexts | None = None

    def another(self, row_of: RowOf) -> Self:
        """See `Drafter.another`: earlier texts that another one reads may be more than it may read itself."""
        other = super().another(row_of)
        other._others = None
        return other

    def _new_reader(self, earlier: Sequence[Sequence[int]] = ()) -> Reader:
        if not earlier:
            return SuffixReader(self._spec, TextIndex(self._spec.max_depth))
        if self._others is None or not self._others.go_on_with(earlier):
            self._others = EarlierTexts(self._spec.max_depth, earlier)
        return SuffixReader(self._spec, self._others.index)


class EarlierTexts:
    """Texts one after another, parted by tokens that are in none of them."""

    def __init__(self, longest: int, texts: Sequence[Sequence[int]]) -> None:
        self.index, self._known = TextIndex(longest), list[Sequence[int]]()
        self.go_on_with(texts)

    def go_on_with(self, texts: Sequence[Sequence[int]]) -> bool:
        """Read those that are new; False where the others are not the ones that are known."""
        if [*texts[: len(self._known)]] != self._known:
            return False
        for text in texts[len(self._known) :]:
            self._known.append(text)
            self.index.read([*text, -len(self._known)])
        return True


class Match(NamedTuple):
    """The text's last `size` tokens, which stood somewhere before."""

    where: TextIndex
    state: int
    size: int


class Draft(NamedTuple):
    """What a match is continued by: `score` is the sum of the nodes' probabilities."""

    match: Match
    nodes: list[Continuation]
    score: float


class SuffixReader(Reader):
    """The text with the counts of its stretches, and where its end is in earlier texts.

    Args:
        spec: how to draft.
        earlier: the index of earlier texts.
    """

    def __init__(self, spec: Suffix, earlier: TextIndex) -> None:
        self._spec, self._text, self._earlier = spec, TextIndex(spec.max_depth), earlier
        self._at = [(ROOT, 0)]  # the longest end of the text that stands in earlier ones, after each pushed token

    def read(self, tokens: Iterable[int]) -> None:
        """See `Reader.read`."""
        for token in tokens:
            self._text.read([token])
            self._at = [self._follow(token)]

    def push(self, token: int) -> None:
        """See `Reader.push`."""
        self._text.push(token)
        self._at.append(self._follow(token))

    def pop(self) -> None:
        """See `Reader.pop`."""
        self._text.pop()
        self._at.pop()

    def _follow(self, token: int) -> tuple[int, int]:
        state, length = self._at[-1]
        return self._earlier.after(state, token, length)

    @property
    def pushed(self) -> int:
        """See `Reader.pushed`."""
        return self._text.pending

    def next_tokens(self, most: int) -> list[int]:
        """See `Reader.next_tokens`: after the match that would draft one token."""
        if (best := self._best(TrieLimits(1, 1), self._spec.min_token_prob)) is None:
            return []
        where, state, _ = best.match
        least = self._least(best.match, self._spec.min_token_prob)
        return [token for token, below in by_count(where, state) if where.count[below] >= least][:most]

    def span(self, most: int) -> list[int]:
        """See `Reader.span`."""
        best = self._best(TrieLimits(most, most), self._spec.min_token_prob)
        return [node.token for node in best.nodes] if best else []

    def tree(self, plan: NestedPlan) -> list[Continuation]:
        """See `Reader.tree`."""
        limits = TrieLimits(plan.nodes, plan.depth, plan.max_children)
        best = self._best(limits, max(self._spec.min_token_prob, exp(plan.least)))
        return best.nodes if best else []

    def _best(self, limits: TrieLimits, min_prob: float) -> Draft | None:
        """The draft with the largest score; of equal ones that of the first match."""
        best, score = None, 0.0
        whole: Match | None = None  # whose depth did not limit it: a shorter match of its state has no more to say
        for match in self._matches():
            room, depth = self._room(match.size, limits), min(limits.depth, self._spec.max_depth - match.size)
            if room <= score or (whole is not None and whole[:2] == match[:2]):
                continue  # no node counts for more than 1
            least = self._least(match, min_prob)
            nodes = continuations(match.where, match.state, limits._replace(nodes=room, depth=depth, least=least))
            draft = Draft(match, nodes, sum(node.times for node in nodes) / match.where.count[match.state])
            if draft.score > score:
                best, score = draft, draft.score
            if depth >= min(room, limits.depth):
                whole = match
        return best

    def _matches(self) -> Iterator[Match]:
        """The ends of the text that stood before, the longest first; those in the text itself before the others."""
        most = min(len(self._text.tokens), self._spec.max_depth) - 1
        for where, ends in ((self._text, self._text.ends()), (self._earlier, self._earlier.shorter(*self._at[-1]))):
            for end in ends:
                for size in range(min(end.longest, most), end.shortest - 1, -1):
                    yield Match(where, end.state, size)

    def _room(self, size: int, limits: TrieLimits) -> int:
        """How many tokens a match of so many may draft."""
        return max(0, min(limits.nodes, int(size * self._spec.factor + self._spec.offset + 1e-6)))

    @staticmethod
    def _least(match: Match, min_prob: float) -> float:
        """The least count of a node."""
        return min_prob * match.where.count[match.state] * (1 - ROUNDING)
