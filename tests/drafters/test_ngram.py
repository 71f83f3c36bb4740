from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.peers import rounds
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from specdraft.acceptance import Greedy
from specdraft.decoding.decode import Decoding, decode
from specdraft.decoding.ending import Ending
from specdraft.decoding.verifier import Verifier
from specdraft.drafters.base import Prefilled, RecordedText
from specdraft.drafters.from_text import Reader
from specdraft.drafters.ngram import Ngram, NgramDrafter
from specdraft.drafters.pair import Pair, load_pair
from specdraft.errors import ConfigError
from specdraft.sampling.distribution import Sampling
from specdraft.trees.shapes import StaticPlan
from specdraft.trees.shapes.best_first import BestFirst
from specdraft.trees.shapes.chain import Chain

STOP = 0
TEXTS = (
    "The cat sat on the mat. The cat sat on the",
    "one two three one two three one two",
    "x",
    "def f(x):\n    def f(x)",
)
NEW = 24
TOKENS = st.lists(st.integers(0, 4), min_size=1, max_size=30)
SIZES = st.integers(1, 4), st.integers(1, 12)


def reader_of(spec: Ngram, tokens: Sequence[int]) -> Reader:
    """After some tokens, the second half of them pushed, and others pushed and taken back in between."""
    drafter = NgramDrafter(spec, frozenset([STOP]))
    drafter.begin(Prefilled(tokens[: len(tokens) // 2]))
    reader = drafter._reader
    for token in (1, 2, 1, 1):
        reader.push(token)
    drafter.rewind()
    for token in tokens[len(tokens) // 2 :]:
        reader.push(token)
    return reader


@given(TOKENS, *SIZES)
def test_the_span_is_the_one_that_transformers_copies(tokens: list[int], longest: int, copied: int) -> None:
    spec = Ngram(max_matching_ngram_size=longest, num_output_tokens=copied)
    theirs = PromptLookupCandidateGenerator(torch.tensor([STOP]), copied, longest, max_length=1000)
    candidates, _ = theirs.get_candidates(torch.tensor([tokens]))
    span = reader_of(spec, tokens).span(copied)
    assert span == candidates[0, len(tokens) :].tolist()
    assert reader_of(spec, tokens).span(2) == span[:2]


def matches(tokens: list[int], sizes: range) -> Iterator[tuple[int, int]]:
    """Size and end of all earlier occurrences of the n-grams at the end, the largest and then the earliest first."""
    for size in sizes:
        for end in range(size, len(tokens)):
            if tokens[end - size : end] == tokens[len(tokens) - size :]:
                yield size, end


def is_whole(tokens: list[int], size: int, end: int, copied: int) -> bool:
    """As Saxena's function: a whole span behind it, and not right at the text's end."""
    return end + copied <= len(tokens) and end < len(tokens) - size


@pytest.mark.parametrize("variant", ["hf", "vllm", "original"])
@given(TOKENS, *SIZES, st.integers(1, 4))
def test_spans_and_children_by_the_rule_read_aloud(
    variant: str, tokens: list[int], longest: int, copied: int, shortest: int
) -> None:
    spec = Ngram(
        variant=variant,
        max_matching_ngram_size=longest,
        prompt_lookup_min=min(shortest, longest),
        num_output_tokens=copied,
    )
    found = [*matches(tokens, range(min(longest, len(tokens) - 1), spec.prompt_lookup_min - 1, -1))]
    if variant == "original":
        found = [(size, end) for size, end in found if is_whole(tokens, size, end, copied)]
    span = tokens[found[0][1] : found[0][1] + copied] if found else []
    children = [*dict.fromkeys(tokens[end] for _, end in found)]
    if variant == "hf":
        span, children = ([*takewhile(lambda token: token != STOP, some)] for some in (span, children))
    reader = reader_of(spec, tokens)
    assert reader.span(copied) == span
    assert reader.next_tokens(99) == children
    assert reader.next_tokens(1) == children[:1] == span[:1]


@given(TOKENS, *SIZES, st.integers(1, 9), st.sampled_from([0.0, 0.5, 1 / 3]))
def test_the_tree_is_the_trie_of_all_occurrences(
    tokens: list[int], longest: int, copied: int, nodes: int, least: float
) -> None:
    found = [*matches(tokens, range(min(longest, len(tokens) - 1), 0, -1))]
    ends = [end for size, end in found if size == found[0][0]]
    counts: Counter[tuple[int, ...]] = Counter()
    for end in ends:
        span = [*takewhile(lambda token: token != STOP, tokens[end : end + copied])]
        counts.update(tuple(span[: depth + 1]) for depth in range(len(span)))
    order = sorted((path for path, n in counts.items() if n >= least * len(ends)), key=lambda p: (-counts[p], p))
    reader = reader_of(Ngram(variant="trie", max_matching_ngram_size=longest, num_output_tokens=copied), tokens)
    paths: list[tuple[int, ...]] = [()]
    for node in reader.tree(BestFirst(max_depth=20, max_children=20, min_prob=least).at(nodes)):
        paths.append((*paths[node.parent], node.token))
    assert paths[1:] == order[:nodes]
    best: tuple[int, ...] = ()
    while below := [path for path in counts if path[:-1] == best]:
        best = min(below, key=lambda path: (-counts[path], path))
    assert reader.span(copied) == [*best]
    assert reader.next_tokens(1) == [*best[:1]] or not best  # a shorter n-gram may know more


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair("zoo", Ngram())


def live(pair: Pair, prompt: list[int], plan: StaticPlan, new: int = NEW) -> Decoding:
    ending = Ending(new, pair.eos_ids)
    return decode(Verifier.of(pair), pair.drafter, plan, Greedy(), Sampling(), prompt, ending).finish()


@pytest.mark.parametrize("text", TEXTS)
def test_rounds_are_those_of_transformers(text: str, pair: Pair) -> None:
    """Our first round starts after the prefill's token, theirs at the prompt's end: they are given that token too."""
    prompt = pair.encode(text)
    decoding = live(pair, prompt, Chain().at(10))
    theirs = rounds(
        pair.target.model, [*prompt, decoding.first], NEW - 1, sorted(pair.eos_ids), prompt_lookup_num_tokens=10
    )
    assert [step.tokens for step in decoding.steps] == theirs


def test_what_is_recorded_with_it_depends_on_where_it_stops() -> None:
    facts = [NgramDrafter(Ngram(), frozenset(stops)).facts() for stops in ((), (1,), (2, 1), (1, 2))]
    assert facts[0] != facts[1] != facts[2] == facts[3]
    assert NgramDrafter(Ngram(num_output_tokens=3), frozenset()).facts() != facts[0]


def test_going_back_to_the_prompt_forgets_the_text() -> None:
    drafter = NgramDrafter(Ngram(), frozenset())
    drafter.begin(Prefilled([1, 2, 3, 1]))
    first = drafter.draft(2, Chain().at(4))
    drafter.commit(first, [1, 2])
    drafter.draft(7, Chain().at(4))
    drafter.rewind()
    assert drafter.draft(2, Chain().at(4)).token_list() == first.token_list() == [2, 3, 1, 2]


def test_ranks_are_those_of_look_ups_after_every_token() -> None:
    drafter = NgramDrafter(Ngram(max_matching_ngram_size=1, num_output_tokens=3), frozenset([9]))
    (said,) = drafter.annotate([RecordedText([5, 6, 5, 7, 9], np.array([5, 7, 5, 6, 9]))])
    assert said.ranks.tolist() == [-1, 1, -1, 0, -1]  # after 7 only the stop is known, so 5 is not proposed
    assert said.top_ids.shape == said.top_probs.shape == (5, 0)


def test_a_tree_that_needs_scores_is_refused() -> None:
    drafter = NgramDrafter(Ngram(), frozenset())
    drafter.begin(Prefilled([1, 2, 1]))
    with pytest.raises(ConfigError, match="no probabilities"):
        drafter.draft(2, BestFirst().at(4))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Ngram(variant="hg"), "did you mean 'hf'"),
        (Ngram(num_output_tokens=0), r"drafter\.num_output_tokens=0"),
        (Ngram(max_matching_ngram_size=-1), r"drafter\.max_matching_ngram_size=-1"),
        (Ngram(prompt_lookup_min=0), r"drafter\.prompt_lookup_min=0"),
        (Ngram(prompt_lookup_min=3), r"prompt_lookup_min=3 .* at most drafter\.max_matching_ngram_size, 2"),
    ],
)
def test_parameters_out_of_range(spec: Ngram, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec.check()


def test_there_are_no_weights() -> None:
    with pytest.raises(ConfigError, match=r"drafter\.path=here: drafter=ngram has no weights"):
        load_pair("zoo", Ngram(path="here"))
    assert load_pair("zoo", Ngram()).files.draft is None
