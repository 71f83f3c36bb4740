from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from specdraft.errors import ConfigError
from specdraft.sampling.distribution import Sampling, standardise


def by_transformers(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    processors = [TemperatureLogitsWarper(sampling.temperature)]
    processors += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    processors += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    for processor in processors:
        logits = processor(None, logits)
    return logits.softmax(-1)


samplings = st.builds(
    Sampling,
    st.floats(0.05, 5),
    st.sampled_from([0, 1, 2, 3, 7, 100]),
    st.one_of(st.just(1.0), st.floats(1e-6, 1), st.just(0.5)),
)


@given(
    st.integers(0, 2**31), samplings, st.integers(1, 40), st.booleans(), st.sampled_from([torch.float32, torch.float64])
)
def test_equals_the_processors_of_transformers(
    seed: int, sampling: Sampling, vocab: int, ties: bool, dtype: torch.dtype
) -> None:
    logits = 3 * torch.randn(5, vocab, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    logits = logits.round() if ties else logits
    found, theirs = standardise(logits, sampling), by_transformers(logits, sampling)
    assert found.dtype == dtype
    if not ties or sampling.top_p == 1:
        assert torch.equal(found, theirs)
    for row, expected, scores in zip(found, theirs, logits, strict=True):
        for score in scores.unique():  # which of equals top-p cuts off is left open there
            assert torch.allclose(row[scores == score].sort().values, expected[scores == score].sort().values)
    assert torch.allclose(found.sum(-1), torch.ones(5, dtype=dtype))


def test_top_p_cuts_the_lower_ids_of_equals_whatever_the_batch() -> None:
    logits = torch.zeros(1, 40)
    alone = standardise(logits, Sampling(1.0, top_p=0.51))
    assert alone.nonzero()[:, 1].tolist() == list(range(19, 40))
    assert torch.equal(standardise(logits.expand(64, 40), Sampling(1.0, top_p=0.51)), alone.expand(64, 40))


def test_any_leading_shape() -> None:
    logits = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(0.7, 5, 0.8)
    assert torch.equal(standardise(logits, sampling)[1, 2], standardise(logits[1, 2], sampling))


def test_by_hand() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.0, 2.0]]).log()  # 1/9 4/9 2/9 2/9
    assert torch.allclose(standardise(logits, Sampling(1.0)), torch.tensor([[1 / 9, 4 / 9, 2 / 9, 2 / 9]]))
    assert torch.allclose(standardise(logits, Sampling(0.5)), torch.tensor([[1 / 25, 16 / 25, 4 / 25, 4 / 25]]))
    assert torch.allclose(
        standardise(logits, Sampling(1.0, top_k=2)), torch.tensor([[0, 1 / 2, 1 / 4, 1 / 4]])
    )  # equals stay
    assert torch.allclose(standardise(logits, Sampling(1.0, top_p=0.6)), torch.tensor([[0, 2 / 3, 0, 1 / 3]]))
    assert torch.allclose(standardise(logits, Sampling(1.0, top_p=1e-9)), torch.tensor([[0, 1.0, 0, 0]]))


@pytest.mark.parametrize("temperature", [-1.0, -1e-9, 1e-9, float("nan"), float("inf"), float("-inf")])
def test_a_temperature_out_of_range(temperature: float) -> None:
    with pytest.raises(ConfigError, match=f"sampling.temperature={temperature} is out of range"):
        Sampling(temperature).check()


@pytest.mark.parametrize("top_p", [0.0, -0.5, 1.1, float("nan"), float("inf")])
def test_a_top_p_out_of_range(top_p: float) -> None:
    with pytest.raises(ConfigError, match=f"sampling.top_p={top_p} is out of range"):
        Sampling(1.0, top_p=top_p).check()


def test_a_top_k_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"sampling\.top_k=-1 is out of range"):
        Sampling(1.0, top_k=-1).check()


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(0.6), Sampling(1.0, 50, 0.95), Sampling(1e-6), Sampling(1.0, 0, 1.0)]
)
def test_what_is_in_range(sampling: Sampling) -> None:
    sampling.check()
    assert standardise(torch.randn(2, 9), sampling).isfinite().all()
