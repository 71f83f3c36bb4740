"""Costs are refused where the machine was not left alone, and hardly ever where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import nan
from random import Random

import pytest

from specdraft.bench import load
from specdraft.bench.load import Elsewhere, LoadMeter, Reading, read_clocks
from specdraft.bench.measuring import Cell, Timing, in_turns
from specdraft.bench.trust import doubts

QUIET = Elsewhere(0.1, 2)


def timings(**changed: Timing) -> dict[tuple[str, int], Timing]:
    costs = {"verify_again_s": 6.0, "verify_s": 6.0, "plain_s": 5.0, "other_s": 0.5}
    found = {name: Timing(value, value - 0.1, value + 0.1) for name, value in costs.items()} | changed
    size = {"verify_again_s": 8, "verify_s": 8}
    known = {(name, size.get(name, 0)): timing for name, timing in found.items()}
    return known | {("verify_s", 1): Timing(4.9, 4.8, 5.0), ("verify_s", 2): Timing(5.1, 5.0, 5.2)}


def test_a_quiet_machine() -> None:
    assert doubts(timings(), QUIET) == []
    assert doubts(timings(), Elsewhere(nan, 2)) == []  # nobody can tell


def test_other_work() -> None:
    assert doubts(timings(), Elsewhere(0.5, 2)) == []
    assert doubts(timings(), Elsewhere(1.26, 2)) == ["other work used 1.3 of 2 cores while costs were measured"]
    assert doubts(timings(), Elsewhere(1.2, 64)) == []  # a fiftieth of the cores
    assert doubts(timings(), Elsewhere(1.4, 64)) == ["other work used 1.4 of 64 cores while costs were measured"]
    assert doubts(timings(), Elsewhere(0.6, 1)) == ["other work used 0.6 of 1 core while costs were measured"]


def test_a_plain_token_is_no_dearer_than_verifying_one_node() -> None:
    assert doubts(timings(plain_s=Timing(6.1, 6.0, 6.2)), QUIET) == []  # less than a tenth above 5.1 + 0.5
    assert doubts(timings(plain_s=Timing(6.5, 5.5, 7.0)), QUIET) == []  # within the spread
    (why,) = doubts(timings(plain_s=Timing(6.5, 6.2, 6.8)), QUIET)
    assert why == "a token of plain decoding (6.5e+03 ms) took longer than a step that verifies 2 tokens (5.6e+03 ms)"


def test_the_same_thing_twice() -> None:
    assert doubts(timings(verify_again_s=Timing(7.0, 6.0, 8.0)), QUIET) == []
    for again in (7.0, 5.0):
        (why,) = doubts(timings(verify_again_s=Timing(again, again - 0.1, again + 0.1)), QUIET)
        assert why.startswith("verifying 8 tokens, timed twice in each round, took 6e+03 ms and ")


class Machine:
    """A simulated one with two cores: forwards of some milliseconds that vary by 4 %, now and then one that is held up.

    With other processes a forward has its share of a core only, and waits for it in slices of time.
    """

    def __init__(self, seed: int, others: int) -> None:
        self.now, self.own, self._chance, self._others = 0.0, 0.0, Random(seed), others

    def cell(self, quantity: str, seconds: float, size: int = 0) -> Cell:
        def sample() -> float:
            work = seconds * max(self._chance.gauss(1, 0.04), 0.5)
            work *= 3 if self._chance.random() < 0.02 else 1
            waited = sum(self._chance.random() < work / 0.008 / 2 for _ in range(self._others)) * 0.004
            self.now, self.own = self.now + work + waited, self.own + work
            return work + waited

        return Cell(quantity, sample, size)

    def read(self) -> Reading:
        idle_machine = 0.08 * self.now  # whatever runs on every machine
        busy = self.own + (min(self._others, 2) * (self.now - 0.5 * self.own) if self._others else idle_machine)
        return Reading(self.now, min(busy, 2 * self.now), 2 * self.now, self.own)

    def refuses(self) -> bool:
        meter = LoadMeter(self.read)
        costs = [("verify_again_s", 6.0, 8), ("draft_level_s", 2.0, 1), ("verify_s", 4.9, 1), ("verify_s", 5.1, 2)]
        cells = [self.cell(name, ms / 1000, size) for name, ms, size in costs]
        cells += [self.cell("verify_s", 0.006, 8), self.cell("plain_s", 0.005), self.cell("other_s", 0.0005)]
        timed = in_turns(cells, 30, now=lambda: self.now, begin=meter.start)
        return bool(doubts({(t.cell.quantity, t.cell.size): t.timing for t in timed}, meter.elsewhere()))


def test_refused_with_two_busy_processes_and_hardly_ever_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "allowed_cores", lambda: [0, 1])
    assert sum(Machine(seed, others=2).refuses() for seed in range(10)) == 10
    assert sum(Machine(seed, others=0).refuses() for seed in range(50)) <= 5


class TestLoadMeter:
    @pytest.fixture(autouse=True)
    def two_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load, "allowed_cores", lambda: [0, 1])

    def readings(self, *readings: Reading) -> Callable[[], Reading]:
        coming: Iterator[Reading] = iter(readings)
        return lambda: next(coming)

    def test_what_others_used_from_the_start_on(self) -> None:
        meter = LoadMeter(self.readings(Reading(0, 0, 0, 0), Reading(10, 12, 20, 8), Reading(20, 27, 40, 17)))
        meter.start()
        assert meter.elsewhere() == (pytest.approx((15 - 9) / 10), 2)

    def test_never_less_than_nothing(self) -> None:
        """Clocks tick a hundred times a second."""
        assert LoadMeter(self.readings(Reading(0, 0, 0, 0), Reading(1, 0.99, 2, 1.0))).elsewhere().used == 0

    def test_clocks_that_stand_still_say_nothing(self) -> None:
        used = LoadMeter(self.readings(Reading(0, 5, 9, 0), Reading(1, 5, 9, 1.0))).elsewhere().used
        assert str(used) == "nan"


def test_the_clocks_of_this_machine() -> None:
    first, last = read_clocks(), read_clocks()
    assert first.wall < last.wall
    assert 0 < first.busy <= first.total
    assert 0 < first.own <= last.own
