"""Timing in turns until medians are steady, within an allowance of seconds; on a clock that is moved by hand."""

from __future__ import annotations

from itertools import cycle, pairwise
from random import Random

import pytest

from specdraft.bench.measuring import Cell, Timing, in_turns, sizes_up_to, steady
from specdraft.traces.watch import Watch


class Hand:
    """A clock's hand, which is moved by hand."""

    def __init__(self) -> None:
        self.at = 100.0
        self.samples: list[str] = []

    def __call__(self) -> float:
        return self.at

    def cell(self, name: str, *seconds: float, spare: bool = False, most: int = 40, varies: bool = False) -> Cell:
        """A cell that takes so many seconds, in turn."""
        turns = cycle(seconds)

        def sample() -> float:
            self.samples.append(name)
            self.at += (taken := next(turns))
            return taken

        return Cell(name, sample, spare=spare, most=most, varies=varies)


@pytest.fixture
def hand() -> Hand:
    return Hand()


def test_the_median_and_the_quartiles() -> None:
    assert Timing.of([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert Timing.of([7.0]) == (7.0, 7.0, 7.0)
    assert Timing(1.0, 0.5, 2.0).plus(Timing(10.0, 9.0, 11.0)) == (11.0, 9.5, 13.0)


@pytest.mark.parametrize(
    ("first", "second", "exceeds"),
    [
        (Timing(1.3, 1.25, 1.4), Timing(1.0, 0.9, 1.1), True),
        (Timing(1.3, 1.05, 1.4), Timing(1.0, 0.9, 1.1), False),  # the spreads overlap
        (Timing(1.09, 1.08, 1.1), Timing(1.0, 0.99, 1.01), False),  # less than a tenth
        (Timing(1.0, 0.9, 1.1), Timing(1.3, 1.25, 1.4), False),
    ],
)
def test_beyond_the_spread(first: Timing, second: Timing, exceeds: bool) -> None:
    assert first.exceeds(second) is exceeds
    assert first.differs(second) is (exceeds or second.exceeds(first))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], False),
        ([1.0] * 4, False),  # too few
        ([1.0] * 5, True),
        ([0.9, 1.0, 1.2, 0.9, 1.2], False),  # quartiles 0.9 and 1.2
        ([0.9, 1.0, 1.2] * 3, False),  # 0.3 wide: a tenth of the median over 3
        ([0.96, 1.0, 1.04] * 3, True),  # 0.08 wide: 0.027 over 3
    ],
)
def test_steady(seconds: list[float], expected: bool) -> None:
    assert steady(seconds) is expected


def test_rounds_go_to_and_fro_after_all_is_warm(hand: Hand) -> None:
    begun: list[int] = []
    cells = [hand.cell("a", 0.5), hand.cell("b", 9.0, *[0.25] * 99), hand.cell("c", 0.125)]
    timed = in_turns(cells, 1000, now=hand, begin=lambda: begun.append(len(hand.samples)))
    assert hand.samples[:9] == ["a", "b", "c", "a", "b", "c", "c", "b", "a"]
    assert begun == [3]
    assert [t.timing.median for t in timed] == [0.5, 0.25, 0.125]  # what warmed up does not count
    assert len(hand.samples) == 3 * (1 + 5)


def test_what_is_not_steady_keeps_all_going(hand: Hand) -> None:
    timed = in_turns([hand.cell("a", 1.0, 2.0), hand.cell("b", 1.0), hand.cell("c", 1.0, most=3)], 1000, now=hand)
    assert [len(t.seconds) for t in timed] == [40, 40, 3]


def test_what_varies_of_itself_keeps_nothing_going(hand: Hand) -> None:
    timed = in_turns([hand.cell("a", 1.0, 2.0, varies=True), hand.cell("b", 1.0)], 1000, now=hand)
    assert [len(t.seconds) for t in timed] == [5, 5]


def test_rounds_go_on_until_load_can_be_told(hand: Hand) -> None:
    """A second of rounds at least, however steady."""
    (timed,) = in_turns([hand.cell("a", 0.0625)], 1000, now=hand)
    assert len(timed.seconds) == 16


def test_no_round_is_begun_that_does_not_fit(hand: Hand) -> None:
    timed = in_turns([hand.cell("a", 1.0, 3.0), hand.cell("b", 2.0)], 20, now=hand)
    assert 14 <= hand.at - 100 <= 20
    assert [len(t.seconds) for t in timed] == [3, 3]


def test_what_is_slow_is_timed_once_and_what_can_be_spared_is_not(hand: Hand) -> None:
    cells = [hand.cell("spare", 20.0, spare=True), *[hand.cell(str(n), 20.0) for n in range(10)]]
    timed = in_turns(cells, 30, now=hand)
    assert [t.cell.quantity for t in timed] == [*map(str, range(10))]
    assert {t.timing.median for t in timed} == {20.0}
    assert hand.at - 100 == 200


def test_what_disturbs_for_a_while_meets_all_alike(hand: Hand) -> None:
    """The machine is half as fast for a while: one after the other, the things would differ by as much."""
    chance = Random(0)

    def cell(name: str) -> Cell:
        def sample() -> float:
            seconds = chance.gauss(0.1, 0.005) * (2 if 103 < hand.at < 104.5 else 1)
            hand.at += seconds
            return seconds

        return Cell(name, sample)

    timed = in_turns([cell(str(n)) for n in range(4)], 1000, now=hand)
    medians = [t.timing.median for t in timed]
    assert max(medians) < 1.15 * min(medians)


def test_who_watches_is_told(hand: Hand) -> None:
    class Told(Watch):
        stages: list[object] = []  # noqa: RUF012
        amount = 0.0

        def stage(self, name: str, due: float, unit: str) -> None:
            self.stages.append((name, due, unit))

        def done(self, amount: float) -> None:
            self.amount += amount

    told = Told()
    in_turns([hand.cell("a", 0.5), hand.cell("b", 0.5)], 1000, told, hand)
    assert told.stages == [("costs", 82, "timings")]
    assert told.amount == 82


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(2, [1, 2]), (4, [1, 2, 4]), (5, [1, 2, 4, 5]), (17, [1, 2, 4, 8, 16, 17]), (65, [1, 2, 4, 8, 16, 32, 64, 65])],
)
def test_sizes(largest: int, sizes: list[int]) -> None:
    assert sizes_up_to(largest) == sizes


def test_no_size_is_more_than_twice_the_one_before() -> None:
    for largest in range(2, 300):
        sizes = sizes_up_to(largest)
        assert (sizes[0], sizes[-1]) == (1, largest)
        assert all(below < size <= 2 * below for below, size in pairwise(sizes))
