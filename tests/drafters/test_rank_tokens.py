from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdraft.drafters.loaded import ranking
from specdraft.drafters.loaded.model import Said
from specdraft.drafters.loaded.ranking import log_probs_of, rank_by_key, rank_tokens

SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, 1e-45, -1e-45, 3.4028234663852886e38, -3.4028234663852886e38]


def by_stable_sort(logits: torch.Tensor, count: int) -> list[list[int]]:
    return [sorted(range(len(row)), key=lambda token, row=row: (-row[token], token))[:count] for row in logits.tolist()]


@st.composite
def scored(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    vocab = draw(st.integers(1, 40))
    value = st.one_of(st.sampled_from(SPECIAL), st.floats(width=32, allow_nan=False))
    rows = draw(st.lists(st.lists(value, min_size=vocab, max_size=vocab), min_size=1, max_size=4))
    return torch.tensor(rows, dtype=torch.float32), draw(st.integers(1, vocab))


@given(scored())
def test_the_order_is_by_logit_then_token_id(case: tuple[torch.Tensor, int]) -> None:
    logits, count = case
    assert rank_tokens(logits, count).tolist() == by_stable_sort(logits, count)
    assert rank_by_key(logits, count).tolist() == by_stable_sort(logits, count)


@pytest.mark.parametrize("count", [1, 2, 17, 1000])
@pytest.mark.parametrize("vocab", [1000, 5003])
def test_the_order_holds_for_many_ties_in_a_large_vocabulary(count: int, vocab: int) -> None:
    logits = torch.randint(-3, 4, (5, vocab), generator=torch.Generator().manual_seed(vocab)) / 2
    assert rank_tokens(logits, count).tolist() == by_stable_sort(logits, count)
    assert rank_by_key(logits, count).tolist() == by_stable_sort(logits, count)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_equal_logits_are_ranked_by_token_id(count: int) -> None:
    for value in SPECIAL:
        assert rank_tokens(torch.full((2, 7), value), count).tolist() == [list(range(count))] * 2


@pytest.mark.parametrize("count", [1, 4])
def test_both_zeros_are_equal(count: int) -> None:
    assert rank_tokens(torch.tensor([[-0.0, 0.0, -0.0, 0.0]]), count).tolist() == [[0, 1, 2, 3][:count]]


def test_infinities_stand_at_the_ends() -> None:
    logits = torch.tensor([[-math.inf, 2.0, math.inf, -3.0, -math.inf, math.inf]])
    assert rank_tokens(logits, 6).tolist() == [[2, 5, 1, 3, 0, 4]]
    assert rank_tokens(logits, 1).tolist() == [[2]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 9, 50])
def test_low_precision_has_the_same_order(dtype: torch.dtype, count: int) -> None:
    logits = torch.randn(3, 500, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert rank_tokens(logits, count).tolist() == by_stable_sort(logits, count)


def test_fewer_ranks_are_a_prefix_of_more() -> None:
    logits = torch.randint(0, 3, (4, 300), generator=torch.Generator().manual_seed(1)).float()
    full = rank_tokens(logits, 300)
    for count in (1, 2, 3, 100):
        assert torch.equal(rank_tokens(logits, count), full[:, :count])


def test_the_rank_of_a_recorded_token_among_equals_is_by_token_id() -> None:
    """The rank that replay goes by is the place that `rank_tokens` gives the token."""
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0, 1.0]]).expand(7, 6)
    tokens = torch.tensor([0, 0, 1, 2, 3, 4, 5])  # of the first one, the prefill's, there is no rank
    made = Said.of(logits[None], tokens[None]).annotation(0, 7)
    assert made.ranks.tolist() == [-1, 3, 0, 1, 5, 2, 4]
    assert made.top_ids[0].tolist() == [1, 2, 4, 0, 5, 3]


@pytest.mark.parametrize("cached", [700, 2**17])  # two rows at a time, or all
@pytest.mark.parametrize("temperature", [0.01, 0.3, 1.0, 2.0])
def test_probabilities_at_a_temperature(temperature: float, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "CACHED", cached)
    logits = 4 * torch.randn(16, 300, generator=torch.Generator().manual_seed(0))
    logits[0, 3] = -torch.inf
    tokens = logits.topk(9).indices
    expected = torch.log_softmax(logits.double() / temperature, -1).gather(-1, tokens)
    assert torch.allclose(log_probs_of(logits, tokens, temperature).double(), expected, atol=1e-5)
