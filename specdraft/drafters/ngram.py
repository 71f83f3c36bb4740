"""Lookup drafting: what followed the last few tokens before, in the prompt or in the text so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import exp
from typing import Any, ClassVar, NamedTuple

from specdraft.drafters.base import DrafterSpec, DrafterTraits, Target
from specdraft.drafters.from_text import Reader, TextDrafter, text_facts
from specdraft.drafters.text_index import ROUNDING, Continuation, TextIndex, TrieLimits, by_count, continuations
from specdraft.errors import ConfigError, did_you_mean
from specdraft.models.files import ModelFiles
from specdraft.trees.shapes import NestedPlan


class Variant(NamedTuple):
    """A rule of looking up.

    Attributes:
        longest: the longest n-gram that is looked up, unless said otherwise.
        stops: copying ends before an end-of-sequence token.
        whole: only occurrences with a whole span behind them count, and not those next to the text's end.
        counts: the most frequent continuation, not the earliest.
    """

    longest: int
    stops: bool = False
    whole: bool = False
    counts: bool = False


VARIANTS = {
    "hf": Variant(2, stops=True),
    "vllm": Variant(5),
    "original": Variant(3, whole=True),
    "trie": Variant(16, stops=True, counts=True),
}


@dataclass
class Ngram(DrafterSpec):
    """Copy what followed the last tokens where they stood before (prompt lookup decoding, Saxena 2023).

    The longest n-gram at the text's end that stood before decides, by its earliest occurrence (`trie`: by all).

    Attributes:
        variant: `hf`: as `transformers`, cut before an end-of-sequence token; `vllm`: as vLLM, not cut; `original`: as
            Saxena's function, which takes no span that is shorter than `num_output_tokens`; `trie`: all occurrences
            together, the most frequent continuation first (as REST, He et al. 2023, on the text itself).
        max_matching_ngram_size: the longest n-gram that is looked up; left out: 2, 5, 3 and 16 tokens.
        prompt_lookup_min: the shortest one.
        num_output_tokens: how many tokens are copied at most; of `trie`, levels of its own tree.
    """

    for_encoders: ClassVar[bool] = True
    kind: str = "ngram"
    variant: str = "hf"
    max_matching_ngram_size: int | None = None
    prompt_lookup_min: int = 1
    num_output_tokens: int = 10

    @property
    def traits(self) -> DrafterTraits:
        """See `DrafterSpec.traits`."""
        return DrafterTraits(
            probabilities=False,
            draws=False,
            copies=self.num_output_tokens,
            owns_weights=False,
            from_tokens=True,
            counts=self.rule.counts,
        )

    @property
    def rule(self) -> Variant:
        """Of the variant."""
        return VARIANTS[self.variant]

    @property
    def longest(self) -> int:
        """Tokens of the longest n-gram that is looked up."""
        return self.rule.longest if self.max_matching_ngram_size is None else self.max_matching_ngram_size

    def check(self) -> None:
        """See `DrafterSpec.check`."""
        if self.variant not in VARIANTS:
            raise ConfigError(f"drafter.variant={self.variant!r} is not known{did_you_mean(self.variant, VARIANTS)}")
        for name in ("max_matching_ngram_size", "prompt_lookup_min", "num_output_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"drafter.{name}={value} is out of range; expected 1 or more")
        if self.prompt_lookup_min > self.longest:
            raise ConfigError(
                f"drafter.prompt_lookup_min={self.prompt_lookup_min} is out of range; expected at most "
                f"drafter.max_matching_ngram_size, {self.longest}"
            )

    def load(self, weights: ModelFiles | None, target: Target) -> NgramDrafter:
        """See `DrafterSpec.load`: there is nothing to load."""
        return NgramDrafter(self, target.files.eos_ids)

    def facts(self, weights: ModelFiles | None, target: ModelFiles) -> dict[str, Any]:
        """See `DrafterSpec.facts`."""
        return text_facts(self, target.eos_ids)


class NgramDrafter(TextDrafter):
    """See `Ngram`."""

    _spec: Ngram

    def _new_reader(self, earlier: Sequence[Sequence[int]] = ()) -> Reader:
        stops = self._stops if self._spec.rule.stops else frozenset()
        return Frequent(self._spec, stops) if self._spec.rule.counts else Earliest(self._spec, stops)


class Match(NamedTuple):
    """An n-gram at the text's end that stood before: how long it is, and its state in the index."""

    size: int
    state: int


class Lookup(Reader):
    """The text with its n-grams.

    Args:
        spec: how to look up.
        stops: copying ends before these tokens.
    """

    def __init__(self, spec: Ngram, stops: frozenset[int]) -> None:
        self._spec, self._stops = spec, stops
        self._index = TextIndex(spec.longest + spec.num_output_tokens * spec.rule.counts)

    def read(self, tokens: Iterable[int]) -> None:
        """See `Reader.read`."""
        self._index.read(tokens)

    def push(self, token: int) -> None:
        """See `Reader.push`."""
        self._index.push(token)

    def pop(self) -> None:
        """See `Reader.pop`."""
        self._index.pop()

    @property
    def pushed(self) -> int:
        """See `Reader.pushed`."""
        return self._index.pending

    def _matches(self) -> Iterator[Match]:
        """The n-grams at the text's end that something followed, the longest first."""
        for end in self._index.ends():
            if self._index.following[end.state]:
                for size in range(min(end.longest, self._spec.longest), end.shortest - 1, -1):
                    if size >= self._spec.prompt_lookup_min:
                        yield Match(size, end.state)

    def next_tokens(self, most: int) -> list[int]:
        """What followed the longest match, then what only followed shorter ones; `stops` end it as they end a span."""
        found: dict[int, None] = {}
        for match in self._matches():
            found |= dict.fromkeys(self._followers(match))
            if len(found) >= most:
                break
        return [*takewhile(lambda token: token not in self._stops, list(found)[:most])]

    def _followers(self, match: Match) -> list[int]:
        """What followed a match, by the variant's preference."""
        raise NotImplementedError


class Earliest(Lookup):
    """The earliest occurrence decides."""

    def _followers(self, match: Match) -> list[int]:
        below = self._index.following[match.state]
        there = [token for token in below if self._counts(match, self._index.first[below[token]] - 1)]
        return sorted(there, key=lambda token: self._index.first[below[token]])

    def _counts(self, match: Match, end: int) -> bool:
        """Whether an occurrence that ends after so many tokens counts."""
        length, copied = len(self._index.tokens), self._spec.num_output_tokens
        return not self._spec.rule.whole or (end + copied <= length and end < length - match.size)

    def span(self, most: int) -> list[int]:
        """See `Reader.span`: what followed the earliest occurrence of the longest match."""
        for match in self._matches():
            start = self._index.first[match.state]
            if self._counts(match, start):
                copied = self._index.tokens[start : start + min(most, self._spec.num_output_tokens)]
                return [*takewhile(lambda token: token not in self._stops, copied)]
        return []


class Frequent(Lookup):
    """All occurrences of the longest match decide: what followed them is a trie."""

    def _followers(self, match: Match) -> list[int]:
        return [token for token, _ in by_count(self._index, match.state, self._stops)]

    def span(self, most: int) -> list[int]:
        """See `Reader.span`: the most frequent token, again and again."""
        return [node.token for node in self._trie(TrieLimits(most, most))]

    def tree(self, plan: NestedPlan) -> list[Continuation]:
        """See `Reader.tree`: by the share of the earlier occurrences that a node has."""
        return self._trie(TrieLimits(plan.nodes, plan.depth, plan.max_children), exp(plan.least))

    def _trie(self, limits: TrieLimits, least_share: float = 0.0) -> list[Continuation]:
        if (match := next(self._matches(), None)) is None:
            return []
        earlier = self._index.count[match.state] - 1  # the text's end is an occurrence too
        depth = min(limits.depth, self._spec.num_output_tokens)
        least = least_share * earlier * (1 - ROUNDING)
        return continuations(self._index, match.state, limits._replace(depth=depth, least=least), self._stops)
