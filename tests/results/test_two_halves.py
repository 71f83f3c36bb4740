"""What is picked on one half of the prompts and measured on the other."""

from __future__ import annotations

import numpy as np

from specdraft.results.bounds import ratios_of_sums
from specdraft.results.two_halves import mixed, on_other_half, picked

HALF = np.array([0, 1, 0, 1])
BELOW = np.array([[1.0, 2.0, 1.0, 2.0], [2.0, 1.0, 2.0, 1.0]])


def test_each_half_is_measured_with_what_leads_on_the_other() -> None:
    ratios = ratios_of_sums(np.ones((2, 4)), BELOW)
    other = on_other_half(ratios, HALF)
    assert other.tolist() == [[0.5, 1.0], [1.0, 0.5]]
    assert picked(other) == (1, 0)
    assert mixed(ratios, (1, 0), HALF).below.tolist() == [[2.0, 2.0, 2.0, 2.0]]


def test_a_half_without_another_is_its_own() -> None:
    ratios = ratios_of_sums(np.ones((2, 4)), BELOW)
    alone = on_other_half(ratios, np.zeros(4, int))
    assert np.allclose(alone, ratios.estimates)


def test_what_is_not_known_is_not_picked() -> None:
    assert picked(np.array([[np.nan, 0.1, 0.1], [0.2, np.nan, 0.1]])) == (1, 0)
