"""Timing until a median is steady, within an allowance of seconds; on a clock that only goes on when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, cycle, pairwise

import pytest

from specdraft.bench.measuring import Allowance, Timing, endless, sizes_up_to, steady
from specdraft.traces.watch import Watch


class Hand:
    """A clock's hand, which is moved by hand."""

    def __init__(self) -> None:
        self.at = 100.0
        self.samples = 0

    def __call__(self) -> float:
        return self.at

    def taking(self, *seconds: float) -> Callable[[], float]:
        """A sample that takes so many seconds, in turn."""
        turns = cycle(seconds)

        def sample() -> float:
            self.samples += 1
            self.at += (taken := next(turns))
            return taken

        return sample


@pytest.fixture
def hand() -> Hand:
    return Hand()


def test_the_median_and_the_quartiles() -> None:
    assert Timing.of([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert Timing.of([7.0]) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], False),
        ([1.0, 1.0], False),  # too few
        ([1.0, 1.0, 1.0], True),
        ([0.9, 1.0, 1.2], False),  # quartiles 0.95 and 1.1
        ([0.9, 1.0, 1.2] * 3, False),  # 0.3 wide: a tenth of the median over 3
        ([0.96, 1.0, 1.04] * 3, True),  # 0.08 wide: 0.027 over 3
    ],
)
def test_steady(seconds: list[float], expected: bool) -> None:
    assert steady(seconds) is expected


def test_what_is_steady_is_timed_three_times_after_a_warm_up(hand: Hand) -> None:
    first, others = iter([9.0]), hand.taking(0.5)
    timing = Allowance(1000, 1, now=hand).time(lambda: next(first, None) or others())
    assert timing == (0.5, 0.5, 0.5)  # the first one does not count
    assert hand.samples == 3


def test_what_is_not_steady_is_timed_thirty_times(hand: Hand) -> None:
    timing = Allowance(1000, 1, now=hand).time(hand.taking(1.0, 2.0))
    assert hand.samples == 31
    assert timing.median == 1.5


def test_a_quantity_takes_its_share_of_what_is_left(hand: Hand) -> None:
    allowance = Allowance(40, 4, now=hand)
    allowance.time(hand.taking(1.0, 3.0))  # unsteady: until its 10 s are over
    assert hand.at - 100 == pytest.approx(10, abs=3)
    spent = hand.at
    allowance.time(hand.taking(0.01))  # steady at once: leaves its time to the others
    assert hand.at - spent == pytest.approx(0.04)
    spent = hand.at
    allowance.time(hand.taking(1.0, 3.0))  # two are left
    assert hand.at - spent == pytest.approx((140 - spent) / 2, abs=3)


def test_what_is_slow_is_timed_once(hand: Hand) -> None:
    """There is no time for a warm-up."""
    allowance = Allowance(30, 10, now=hand)
    timings = [allowance.time(hand.taking(20.0)) for _ in range(10)]
    assert hand.samples == 10
    assert {timing.median for timing in timings} == {20.0}
    assert allowance.spent_s == 200


def test_behind(hand: Hand) -> None:
    allowance = Allowance(40, 4, now=hand)
    assert not allowance.is_behind
    allowance.time(hand.taking(12.0))  # its share was 10
    assert allowance.is_behind
    allowance.skip(2)  # 12 s of the 30 that three may take
    assert not allowance.is_behind


def test_who_watches_is_told(hand: Hand) -> None:
    class Told(Watch):
        said: list[object] = []  # noqa: RUF012

        def stage(self, name: str, due: float, unit: str) -> None:
            self.said.append((name, due, unit))

        def done(self, amount: float) -> None:
            self.said.append(amount)

    allowance = Allowance(10, 3, Told(), hand)
    allowance.time(hand.taking(0.1))
    allowance.skip(2)
    assert Told.said == [("costs", 3, "timings"), 1, 2]


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(2, [1, 2]), (4, [1, 4]), (5, [1, 2, 5]), (17, [1, 3, 7, 17]), (64, [1, 4, 16, 64]), (65, [1, 3, 8, 23, 65])],
)
def test_few_sizes(largest: int, sizes: list[int]) -> None:
    assert sizes_up_to(largest) == sizes


def test_no_size_is_more_than_about_four_times_the_one_before() -> None:
    for largest in range(2, 1000):
        sizes = sizes_up_to(largest)
        assert (sizes[0], sizes[-1]) == (1, largest)
        assert all(below < size <= 4.5 * below for below, size in pairwise(sizes))


def test_endless() -> None:
    starts = count()

    def some() -> Iterator[int]:
        yield from [next(starts)] * 2

    again = endless(some)
    assert [next(again) for _ in range(5)] == [0, 0, 1, 1, 2]
