from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.published import TABLE_1, TABLE_4

from specdraft.errors import ConfigError
from specdraft.theory.formulas import (
    alpha_for,
    best_gamma,
    endless,
    expected_steps,
    expected_tokens,
    operations,
    speedup,
)

alphas = st.floats(0, 1)
gammas = st.integers(0, 40)


@pytest.mark.parametrize(("alpha", "tokens"), [(0.6, 2.306), (0.8, 3.362), (0.9, 4.095)])
def test_expected_tokens_of_a_chain_of_four(alpha: float, tokens: float) -> None:
    assert round(expected_tokens(alpha, 4), 3) == tokens


@pytest.mark.parametrize(("alpha", "gamma", "work", "faster"), TABLE_1)
def test_table_1(alpha: float, gamma: int, work: float, faster: float) -> None:
    assert round(operations(alpha, gamma, 0), 2) == work
    assert round(speedup(alpha, gamma, 0), 2) == faster


def test_table_4_at_its_printed_inputs() -> None:
    assert sum(round(speedup(alpha, gamma, cost), 1) == printed for gamma, alpha, cost, printed in TABLE_4) == 9


@pytest.mark.parametrize(("gamma", "alpha", "cost", "printed"), TABLE_4)
def test_table_4_within_the_rounding_of_its_inputs(gamma: int, alpha: float, cost: float, printed: float) -> None:
    corners = [speedup(alpha + a, gamma, cost + c) for a, c in product((-0.005, 0.005), repeat=2)]
    assert round(min(corners), 1) <= printed <= round(max(corners), 1)


@given(st.floats(0, 0.999), gammas)
def test_the_closed_form(alpha: float, gamma: int) -> None:
    assert expected_tokens(alpha, gamma) == pytest.approx((1 - alpha ** (gamma + 1)) / (1 - alpha), rel=1e-9)


@given(alphas, st.integers(1, 40))
def test_the_inverse(alpha: float, gamma: int) -> None:
    tokens = expected_tokens(alpha, gamma)
    assert expected_tokens(alpha_for(tokens, gamma), gamma) == pytest.approx(tokens, rel=1e-12)


def test_always_and_never_accepted() -> None:
    assert (expected_tokens(1, 4), expected_tokens(0, 4), expected_tokens(0.5, 0)) == (5, 1, 1)
    assert (alpha_for(5, 4), alpha_for(1, 4)) == (1, pytest.approx(0, abs=1e-300))


@given(st.floats(0, 0.97), st.floats(0.01, 1.5))
def test_the_best_gamma_is_the_integer_argmax_and_pays_iff_alpha_beats_the_cost(alpha: float, cost: float) -> None:
    factors = [speedup(alpha, gamma, cost) for gamma in range(200)]
    best = best_gamma(alpha, cost, longest=199)
    assert factors[best] == pytest.approx(max(factors), rel=1e-12)
    if abs(alpha - cost) > 1e-9:
        assert (best > 0) == (alpha > cost)


def test_the_best_gamma_without_an_end() -> None:
    assert best_gamma(1, 0.5, longest=7) == best_gamma(0.9, 0, longest=7) == 7
    assert best_gamma(0.3, 0.3) == best_gamma(0, 0) == 0


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: expected_tokens(1.1, 2), "alpha=1.1"),
        (lambda: expected_tokens(float("nan"), 2), "alpha=nan"),
        (lambda: speedup(0.5, -1, 0.1), "gamma=-1"),
        (lambda: speedup(0.5, 2, -0.1), "cost=-0.1"),
        (lambda: operations(0.5, 2, float("inf")), "cost=inf"),
        (lambda: best_gamma(0.5, float("nan")), "cost=nan"),
        (lambda: alpha_for(4, 2), "tokens=4"),
        (lambda: alpha_for(1, 0), "tokens=1"),
    ],
)
def test_bad_input(call: Callable[[], float], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        call()


def test_steps_of_a_text() -> None:
    assert [expected_steps(0.5, 0, n) for n in (0, 1, 5)] == [0, 1, 5]
    assert [expected_steps(1, 3, n) for n in (1, 4, 5)] == [1, 1, 2]
    assert expected_steps(0.6, 1, 2) == pytest.approx(1.4)
    assert expected_steps(0.5, 2, 2) == pytest.approx(1.5)  # a second step only where the first token was rejected
    assert 5000 / expected_steps(0.7, 4, 5000) == pytest.approx(expected_tokens(0.7, 4), rel=1e-3)


def test_where_longer_is_always_better() -> None:
    assert (endless(0.5, 0), endless(1, 0.5), endless(0, 0), endless(0.9, 0.1), endless(1, 1)) == (
        True,
        True,
        False,
        False,
        False,
    )
