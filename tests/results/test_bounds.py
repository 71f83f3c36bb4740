"""Intervals against their definition, prompt by prompt, and how often they hold the truth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from specdraft.results.bounds import (
    blocks,
    bounds,
    bounds_of_differences,
    error_share,
    ratios_of_sums,
    spread_of,
    widening,
    with_error,
)

FREE = (-np.inf, np.inf)
Numbers = list[float]


def ends(above: Numbers, below: Numbers, categories: str | None = None, possible: object = (0.0, np.inf)) -> Numbers:
    """One ratio's interval."""
    codes = np.array([ord(c) for c in categories or "a" * len(above)])
    (found,) = bounds(ratios_of_sums(np.array([above], float), np.array([below], float)), codes, possible)
    return [float(end) for end in found]


def taken_of_categories(moves: Numbers, categories: str) -> float:
    """`1 - c / F`, four fifths of it at most."""
    names, count = sorted(set(categories)), len(moves)
    if len(names) == 1 or count - len(names) < 3:
        return 0.0
    means = {name: np.mean([m for m, c in zip(moves, categories, strict=True) if c == name]) for name in names}
    between = sum(means[c] ** 2 for c in categories) / (len(names) - 1)
    within = sum((m - means[c]) ** 2 for m, c in zip(moves, categories, strict=True)) / (count - len(names))
    return 0.8 * max(0.0, 1 - stats.f.ppf(0.85, len(names) - 1, count - len(names)) * within / between)


def standard_errors(moves: Numbers, categories: str, taken: float) -> float:
    """How many of its own standard errors a sum is allowed to be from 0, times that standard error by its parts."""
    count, freedom = len(moves), len(moves) - 1 - taken * (len(set(categories)) - 1)
    t = stats.t.ppf(0.975, count - 1)
    return float(stats.t.ppf(0.975, freedom) * (1 + skewness(moves) ** 2 / count * (t**4 + 2 * t**2 - 3) / 18)
                 * np.sqrt(count / freedom))  # fmt: skip


def skewness(moves: Numbers) -> float:
    mean = np.mean(moves)
    return float(np.mean([(m - mean) ** 3 for m in moves]) / np.mean([(m - mean) ** 2 for m in moves]) ** 1.5)


def length(values: Numbers, categories: str, taken: float) -> float:
    """Of the values less what is taken of their category's mean, all less the mean of all."""
    mean = np.mean(values)
    centred = [v - mean for v in values]
    of = {name: np.mean([v for v, c in zip(centred, categories, strict=True) if c == name]) for name in categories}
    return float(np.sqrt(sum((v - taken * of[c]) ** 2 for v, c in zip(centred, categories, strict=True))))


def by_search(above: Numbers, below: Numbers, categories: str) -> Numbers:
    """Fieller's interval by halving: where `sum(above - R * below)` is as far from 0 as it may be."""
    ratio = sum(above) / sum(below)
    moves = [(y - ratio * x) / sum(below) for y, x in zip(above, below, strict=True)]
    taken = taken_of_categories(moves, categories)
    errors = standard_errors(moves, categories, taken)

    def inside(value: float) -> bool:
        left = [y - value * x for y, x in zip(above, below, strict=True)]
        return abs(sum(left)) <= errors * length(left, categories, taken)

    found = []
    for direction in (-1, 1):
        near, far = ratio, ratio + direction * 1000
        assert not inside(far)
        for _ in range(100):
            middle = (near + far) / 2
            near, far = (middle, far) if inside(middle) else (near, middle)
        found.append(near)
    return found


def leave_one_out(above: Numbers, below: Numbers) -> Numbers:
    """How far the ratio is from what it is without each prompt."""
    ratio, count = sum(above) / sum(below), len(above)
    apart = [ratio - (sum(above) - y) / (sum(below) - x) for y, x in zip(above, below, strict=True)]
    return [a * (count - 1) / count for a in apart]


@pytest.mark.parametrize("categories", ["a" * 12, "ab" * 6, "abcde" * 3, "abcdefgh", "abcdeabc"])
@pytest.mark.parametrize("seed", range(3))
def test_a_ratio_against_the_definition(categories: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    above = [float(x) for x in rng.integers(0, 60, len(categories))]
    below = [float(x) for x in rng.integers(10, 30, len(categories))]
    above = [y + 40 * (c == "a") for y, c in zip(above, categories, strict=True)]
    assert ends(above, below, categories, FREE) == pytest.approx(by_search(above, below, categories), rel=1e-9)


@pytest.mark.parametrize("categories", ["a" * 9, "ab" * 6, "abcdeabc"])
def test_a_difference_against_leaving_one_out(categories: str) -> None:
    rng = np.random.default_rng(len(categories))
    sides = [[[float(x) for x in rng.integers(low, 40, len(categories))] for low in (0, 9)] for _ in range(2)]
    (first, second), codes = sides, np.array([ord(c) for c in categories])
    pairs = zip(leave_one_out(*first), leave_one_out(*second), strict=True)
    apart = [a - b for a, b in pairs]
    moves = [a - np.mean(apart) for a in apart]
    taken = taken_of_categories(moves, categories)
    reach = standard_errors(moves, categories, taken) * length(moves, categories, taken)
    difference = sum(first[0]) / sum(first[1]) - sum(second[0]) / sum(second[1])
    ratios = [ratios_of_sums(*(np.array([numbers]) for numbers in side)) for side in sides]
    (found,) = bounds_of_differences(*ratios, codes)
    assert found == pytest.approx([difference - reach, difference + reach], rel=1e-9)


def test_many_at_once_are_as_each_alone() -> None:
    """Rows in which other prompts have no step, and more rows than are worked on at a time."""
    rng, codes = np.random.default_rng(0), np.arange(14) % 3
    above, below = rng.integers(0, 60, (300, 14)).astype(float), rng.integers(5, 30, (300, 14)).astype(float)
    above[::3, 4], below[::3, 4] = 0, 0
    below[::5, :11] = 0
    ratios = ratios_of_sums(above, below)
    found = bounds(ratios, codes, (0.0, 3.0))
    other = bounds_of_differences(ratios, ratios.at(np.arange(300)[::-1]), codes)
    for row in range(300):
        chosen = np.array([row])
        np.testing.assert_allclose(found[chosen], bounds(ratios.at(chosen), codes, (0.0, 3.0)), rtol=1e-12)
        mirror = ratios.at(299 - chosen)
        np.testing.assert_allclose(other[chosen], bounds_of_differences(ratios.at(chosen), mirror, codes), rtol=1e-12)
    assert np.isnan(found[::5]).all() and not np.isnan(found[1::5]).any()


@pytest.mark.parametrize(("rows", "width"), [(0, 80), (5, 1 << 20), (3, 1 << 22), (4_000_000, 2)])
def test_blocks_are_all_rows_in_order(rows: int, width: int) -> None:
    parts = list(blocks(np.arange(rows), width))
    assert sum(map(len, parts)) == rows and all(len(part) * width <= max(1 << 20, width) for part in parts)
    assert all(a[-1] + 1 == b[0] for a, b in pairwise(parts))


@pytest.mark.parametrize(("prompts", "there"), [(2, False), (4, False), (5, True)])
def test_fewer_than_five_prompts_have_none(prompts: int, there: bool) -> None:
    low, high = ends([3.0, 8.0, 5.0, 6.0, 4.0][:prompts], [4.0] * prompts)
    assert (low < high) if there else (np.isnan(low) and np.isnan(high))


def test_prompts_that_are_all_alike_have_none() -> None:
    """Nothing says how far another prompt would be from them."""
    assert np.isnan(ends([7.0] * 8, [4.0] * 8)).all()
    assert np.isnan(ends([7.0, 14.0] * 4, [4.0, 8.0] * 4)).all()


def test_equal_prompts_that_differ_by_category_only_are_not_alike() -> None:
    """A fifth of what differs between categories counts always."""
    low, high = ends([7.0, 9.0] * 4, [4.0] * 8, "ab" * 4)
    assert (low, high) == pytest.approx((2 - 0.0487, 2 + 0.0487), abs=1e-4)  # 2.43 * sqrt(8 / 6.2) * 0.2 * sqrt(8) / 32


def test_one_that_differs_makes_it_wide() -> None:
    """Student's is 0.25 give or take 0.59 here; skewness 36 / 7 widens that by more than twice."""
    low, high = ends([0.0] * 7 + [8.0], [4.0] * 8, possible=FREE)
    assert (low, high) == pytest.approx((0.25 - 1.4240, 0.25 + 1.4240), rel=1e-3)
    assert ends([0.0] * 7 + [8.0], [4.0] * 8, possible=(0.0, 4.0)) == pytest.approx([0.0, 0.25 + 1.4240], rel=1e-3)


def test_skewness_widens_by_the_second_order_term() -> None:
    moves = np.array([[-1.0, 1.0] * 4, [-1.0] * 7 + [7.0]])
    assert widening(moves) == pytest.approx([1.0, 1 + 36 / 7 / 8 * (2.364624**4 + 2 * 2.364624**2 - 3) / 18], rel=1e-6)
    assert widening(-moves) == pytest.approx(widening(moves)) and widening(np.zeros((1, 8))) == 1.0


def test_what_differs_between_categories_is_hardly_an_error() -> None:
    rng, codes = np.random.default_rng(0), np.arange(60) % 3
    noise = rng.normal(0, 0.1, 60)
    moves = np.stack([noise - noise.mean(), noise + codes - (noise + codes).mean()])
    spread = spread_of(moves, codes)
    assert spread.taken[0] == 0.0 and 0.75 < spread.taken[1] <= 0.8
    assert np.sum(spread.centred(moves, codes)[1] ** 2) < 0.1 * np.sum(moves[1] ** 2)


def test_a_denominator_that_may_be_nothing_bounds_nothing() -> None:
    """Of seconds: no interval; of tokens per step: all that is possible."""
    above, below = [9.0, 8.0, 1.0, 1.0, 1.0], [900.0, 3.0, 1.0, 1.0, 1.0]
    assert np.isnan(ends(above, below)).all()
    assert ends(above, below, possible=(0.0, 17.0)) == [0.0, 17.0]


def test_never_beyond_what_is_possible_nor_without_the_value() -> None:
    assert ends([0.0, 36.0, 0.0, 36.0, 36.0], [36.0] * 5, possible=(0.0, 1.0)) == [0.0, 1.0]
    assert ends([18.0, 54.0, 18.0, 54.0, 54.0], [9.0] * 5, possible=(1.0, 3.0))[1] == pytest.approx(
        4.4
    )  # its own value


def test_prompts_without_a_step_do_not_count() -> None:
    some = [5.0, 7.0, 6.0, 9.0, 6.0]
    assert ends(some, [4.0] * 5) == ends([*some, 0.0, 0.0], [4.0] * 5 + [0.0, 0.0])
    assert np.isnan(ends([0.0] * 7 + [6.0], [0.0] * 7 + [4.0])).all()
    assert np.isnan(ends([0.0] * 7, [0.0] * 7)).all()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20), st.sampled_from("ab")), min_size=1, max_size=24))
def test_are_ordered_and_never_negative(prompts: list[tuple[int, int, str]]) -> None:
    """What has no step has no token either."""
    there = [(above if below else 0, below, category) for above, below, category in prompts]
    above, below, categories = (list(column) for column in zip(*there, strict=True))
    low, high = ends(above, below, "".join(categories))
    assert (np.isnan(low) and np.isnan(high)) or 0 <= low <= sum(above) / sum(below) <= high


def rates(rng: np.random.Generator, studies: int, category: np.ndarray) -> np.ndarray:
    """Prompts differ in how easy they are, categories too."""
    return rng.beta(4, 6 - category, (studies, len(category)))


@pytest.mark.parametrize("sizes", [(8,), (12,), (3, 3, 2, 2, 2), (16,) * 5])
def test_hold_the_truth_as_often_as_they_say(sizes: tuple[int, ...]) -> None:
    """Two trees over 64 tokens a prompt, the second a little better by an amount that differs between prompts."""
    codes, rng = np.repeat(np.arange(len(sizes)), sizes), np.random.default_rng(3)

    def draw(codes: np.ndarray, studies: int) -> list[tuple[np.ndarray, np.ndarray]]:
        easy = rates(rng, studies, codes)
        better = np.clip(easy + rng.normal(0.03, 0.05, easy.shape), 0.01, 0.99)
        steps = [np.maximum(1.0, np.rint(64 / (1 + 3 * rate))) for rate in (easy, better)]
        return [(rng.binomial((3 * n).astype(int), r) + n, n) for n, r in zip(steps, (easy, better), strict=True)]

    large = [draw(np.full(20_000, code), 1) for code in range(len(sizes))]
    truth = [np.dot(sizes, [study[t][0].mean() for study in large]) / np.dot(sizes, [s[t][1].mean() for s in large])
             for t in range(2)]  # fmt: skip
    a, b = (ratios_of_sums(*tree) for tree in draw(codes, 4000))
    for (low, high), true in (
        (bounds(a, codes).T, truth[0]),
        (bounds_of_differences(b, a, codes).T, truth[1] - truth[0]),
    ):
        assert 0.935 <= np.mean((low <= true) & (true <= high)) <= 0.97


def test_an_error_beside_the_prompts_is_held_as_often_as_theirs() -> None:
    """A mean over 30 prompts, times a cost that is 10 % off in its standard deviation."""
    rng, studies = np.random.default_rng(0), 2000
    above = rng.normal(2.0, 0.5, (studies, 30))
    ratios = ratios_of_sums(above, np.ones_like(above))
    off = ratios._replace(estimates=ratios.estimates * np.exp(rng.normal(0, 0.1, studies)))
    over_prompts = bounds(ratios, np.zeros(30, int)) * (off.estimates / ratios.estimates)[:, None]
    both = with_error(off.estimates, over_prompts, np.full(studies, 0.1))
    held = np.mean((both[:, 0] < 2.0) & (both[:, 1] > 2.0))
    assert 0.94 < held < 0.965
    assert np.mean((over_prompts[:, 0] < 2.0) & (over_prompts[:, 1] > 2.0)) < 0.7


def test_without_an_interval_over_prompts_there_is_none() -> None:
    none = with_error(np.array([2.0, 2.0]), np.array([[np.nan, np.nan], [1.5, 2.5]]), np.array([0.1, np.nan]))
    assert np.isnan(none[0]).all()
    assert none[1].tolist() == pytest.approx([1.5, 2.5])


def test_the_error_beside_the_prompts_is_read_back() -> None:
    values, ends, share = np.array([2.0, 3.0, 1.5]), np.array([[1.5, 2.5], [2.0, 4.0], [np.nan] * 2]), [0.1, 0.0, 0.2]
    wider = with_error(values, ends, np.array(share))
    assert error_share(values, ends, wider).tolist() == pytest.approx([0.1, 0.0, 0.0])
    cut = np.minimum(wider, [2.0, 2.51])  # one end was held by what is possible
    assert error_share(values, ends, cut)[0] == pytest.approx(0.1)
