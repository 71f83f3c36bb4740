"""What is certain of the overlap of two distributions of which only the most probable tokens are known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from specdraft.drafters.base import Annotation
from specdraft.traces.alpha_bounds import overlap_bounds
from specdraft.traces.served import ServedTrajectory

VOCAB, PLACES = 12, 6


def best(probs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-probs, axis=1)[:, :count]
    return order.astype(np.int32), np.take_along_axis(probs, order, 1)


def told(target: np.ndarray, draft: np.ndarray, counts: tuple[int, int]) -> tuple[ServedTrajectory, Annotation]:
    nothing = np.zeros(PLACES)
    ids, probs = best(target, counts[0])
    text = ServedTrajectory(nothing, nothing, ids, np.log(probs).astype(np.float32))
    return text, Annotation(nothing, *best(draft, counts[1]), nothing)


@given(st.integers(0, 10**6), st.integers(1, VOCAB), st.integers(1, VOCAB), st.sampled_from([0.2, 1.0, 4.0]))
def test_the_overlap_lies_between_the_bounds(seed: int, known: int, drafted: int, sharp: float) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(2, PLACES, VOCAB)) * sharp
    probs = [np.exp(logits) / np.exp(logits).sum(1, keepdims=True) for logits in (first, (first + second) / 2)]
    exact = np.minimum(*probs).sum(1)[1:]
    lower, upper = overlap_bounds(*told(*probs, (known, drafted)))
    assert (lower <= exact + 1e-6).all() and (exact <= upper + 1e-6).all()
    if known == drafted == VOCAB:
        np.testing.assert_allclose(lower, exact, atol=1e-6)
        np.testing.assert_allclose(upper, exact, atol=1e-6)


def test_more_that_is_known_is_narrower() -> None:
    generator = np.random.default_rng(1)
    probs = [generator.dirichlet(np.full(VOCAB, 0.5), PLACES) for _ in range(2)]
    widths = [np.subtract(*overlap_bounds(*told(*probs, (known, known)))[::-1]).mean() for known in (2, 5, 9, VOCAB)]
    assert widths == sorted(widths, reverse=True) and widths[0] > 0.1 and abs(widths[-1]) < 1e-6


def test_what_is_not_given_of_a_place_is_no_token() -> None:
    generator = np.random.default_rng(2)
    probs = [generator.dirichlet(np.ones(VOCAB), PLACES) for _ in range(2)]
    text, said = told(*probs, (4, 6))
    wider = [np.pad(text.top_ids, ((0, 0), (0, 3)), constant_values=-1),
             np.pad(text.top_log_probs, ((0, 0), (0, 3)), constant_values=-np.inf)]  # fmt: skip
    padded = text._replace(top_ids=wider[0], top_log_probs=wider[1])
    for one, other in zip(overlap_bounds(text, said), overlap_bounds(padded, said), strict=True):
        np.testing.assert_allclose(one, other)
