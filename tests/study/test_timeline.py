"""The time left, on a made-up clock: what is said after the first tenth is right to a factor of two."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isnan

import pytest

from specdraft.study.timeline import Stage, Timeline


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.at = 50.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def of_models(name: str, due: float, guess_s: float, pair: str = "a") -> Stage:
    return Stage(pair, name, "units", due, guess_s, by_models=True)


def test_before_anything_is_known_the_guesses_stand(clock: Clock) -> None:
    timeline = Timeline([of_models("record", 10, 20.0), Stage("", "report", "pages", 1, 5.0)], clock)
    assert timeline.left_s() == 25


def test_a_stages_own_rate(clock: Clock) -> None:
    timeline = Timeline([of_models("record", 10, 20.0)], clock)
    timeline.begin("a", "record", 10, "units")
    clock.at += 12
    timeline.advance(4)
    assert timeline.left_s() == 18  # 3 s each
    assert timeline.current is not None
    assert timeline.current.rate == pytest.approx(1 / 3)
    clock.at += 2
    assert timeline.left_s() == 16  # it goes down while nothing is said
    clock.at += 100
    assert timeline.left_s() == pytest.approx(10.2)  # a tenth of the time since then
    timeline.advance(6)
    assert timeline.left_s() == 0
    assert timeline.current is None


def test_what_one_stage_says_of_the_others(clock: Clock) -> None:
    stages = [of_models("record", 10, 20.0), of_models("annotate", 10, 8.0), Stage("", "report", "pages", 1, 5.0)]
    timeline = Timeline(stages, clock)
    timeline.begin("a", "record", 10, "units")
    clock.at += 30
    timeline.advance(5)  # 60 s in all, three times the guess
    assert timeline.left_s() == 30 + 3 * 8 + 5
    timeline.advance(5)
    timeline.begin("a", "annotate", 10, "units")
    assert timeline.left_s() == pytest.approx(30 / 20 * 8 + 5)


def test_preparations_are_not_taken_for_work(clock: Clock) -> None:
    """Two batches of 10 units: 40 s to read the prompts of each, then 1 s a unit."""
    timeline = Timeline([of_models("record", 20, 1.0)], clock)
    timeline.begin("a", "record", 20, "units")
    clock.at += 40
    timeline.ready(10)
    clock.at += 2
    timeline.advance(2)
    assert timeline.left_s() == 2 * 40 + 20 - 42
    for _ in range(8):
        clock.at += 1
        timeline.advance(1)
    assert timeline.left_s() == 50
    clock.at += 40
    timeline.ready(10)
    assert timeline.left_s() == 10


def test_nothing_done_for_long_is_long_to_go(clock: Clock) -> None:
    timeline = Timeline([of_models("record", 10, 20.0)], clock)
    timeline.begin("a", "record", 10, "units")
    clock.at += 100
    assert timeline.left_s() == 50


def test_what_is_there_already_takes_no_time_and_says_nothing_of_the_rate(clock: Clock) -> None:
    pairs = [of_models(name, 10, 20.0, pair) for pair in "abc" for name in ("record", "annotate")]
    timeline = Timeline(pairs, clock)
    timeline.begin("a", "record", 0, "units")
    assert timeline.left_s() == 60  # nothing is said of annotating, and the other pairs' texts will be there too
    timeline.begin("a", "annotate", 5, "units")  # half of it is there
    clock.at += 10
    timeline.advance(2.5)
    assert timeline.left_s() == 10 + 2 * 20  # so will half of the other pairs'
    timeline.advance(2.5)
    timeline.leave()
    timeline.begin("b", "record", 10, "units")
    assert timeline.left_s() == pytest.approx(20 * (10 / 10) + 2 * 10)
    clock.at += 30
    timeline.advance(10)
    timeline.begin("b", "annotate", 10, "units")  # all of it is due, at the rate of the other pair's
    assert timeline.left_s() == pytest.approx(20 + (30 / 40) * 20 + 10)


def test_a_stage_within_another(clock: Clock) -> None:
    """Fitted trees record their texts while rows are decoded; the rows' rate does not know of it."""
    timeline = Timeline([Stage("a", "decode", "rows", 10, 1.0), of_models("record", 4, 1.0)], clock)
    timeline.begin("a", "decode", 10, "rows")
    timeline.begin("a", "record", 4, "units")
    clock.at += 40
    timeline.advance(4)
    assert timeline.current is not None
    assert timeline.current.name == "decode"
    clock.at += 2
    timeline.advance_rows(2, "a")
    assert timeline.current.rate == 1
    assert timeline.left_s() == 8
    assert timeline.spent_s() == {"a": {"decode": 2, "record": 40}}
    timeline.begin("b", "record", 4, "units")
    timeline.begin("b", "record", 4, "units")
    clock.at += 3
    assert timeline.spent_s() == {"a": {"decode": 2, "record": 40}, "b": {"record": 3}}


def test_what_was_planned_before_and_did_not_happen_is_over(clock: Clock) -> None:
    timeline = Timeline([of_models("record", 4, 9.0), of_models("judge", 4, 9.0), of_models("costs", 4, 7.0)], clock)
    timeline.begin("a", "costs", 4, "units")
    assert timeline.left_s() == 7


def test_what_was_not_planned_counts_from_its_first_unit(clock: Clock) -> None:
    timeline = Timeline([], clock)
    timeline.begin("a", "record", 4, "units")
    assert timeline.left_s() == 0
    clock.at += 2
    timeline.advance(1)
    assert timeline.left_s() == 6


def test_a_pair_that_fails_takes_its_rows_along(clock: Clock) -> None:
    stages = [of_models("load", 1, 3.0), of_models("record", 4, 9.0), Stage("a", "replay", "rows", 8, 4.0)]
    timeline = Timeline([*stages, Stage("b", "replay", "rows", 8, 4.0)], clock)
    timeline.begin("a", "load", 1, "models")
    timeline.advance_rows(6, "a")
    assert timeline.left_s() == 9 + 1 + 4  # a quarter of its rows is left
    timeline.advance_rows(2, "a")
    timeline.leave()
    timeline.begin("b", "replay", 8, "rows")
    assert timeline.left_s() == 4


def test_guesses_have_a_limit(clock: Clock) -> None:
    timeline = Timeline([of_models("record", 4, 1.0), Stage("a", "costs", "timings", 1, 5.0, True, most_s=30.0)], clock)
    timeline.begin("a", "record", 4, "units")
    clock.at += 50
    timeline.advance(2)
    assert timeline.left_s() == 50 + 30


def test_no_rate_before_the_first_unit() -> None:
    assert isnan(Stage("a", "record", "tokens", 5).rate)


@dataclass
class Run:
    """A study as it really goes: what is said of the time left is compared with what was left."""

    clock: Clock = field(default_factory=Clock)
    said: list[tuple[float, float]] = field(default_factory=list)  # when, and what was said to be left

    def listen(self, timeline: Timeline) -> None:
        self.said.append((self.clock.at, timeline.left_s()))

    def take(self, timeline: Timeline, seconds: float) -> None:
        """Time passes; somebody looks now and then."""
        for _ in range(looks := max(1, round(seconds))):
            self.clock.at += seconds / looks
            self.listen(timeline)

    def stage(self, timeline: Timeline, pair: str, name: str, units: list[float]) -> None:
        timeline.begin(pair, name, len(units), "units")
        for seconds in units:
            self.take(timeline, seconds)
            timeline.advance(1)

    def worst_after_a_tenth(self) -> float:
        """The largest factor between what was said and what was true, of all but the last moments."""
        start, end = self.said[0][0], self.clock.at
        true = [(end - at, left) for at, left in self.said if at - start >= (end - start) / 10]
        return max(max(was / left, left / was) for was, left in true if was >= (end - start) / 50)


@pytest.mark.parametrize("slow", [0.2, 1.0, 7.0, 40.0])
def test_right_to_a_factor_of_two_after_a_tenth(slow: float) -> None:
    """Three pairs with models so many times as slow as guessed, texts of unequal length, batches with prompts first."""
    run = Run()
    names = {"record": 40.0, "annotate": 15.0, "expand": 30.0}
    stages = [of_models(name, 32, guess, pair) for pair in "abc" for name, guess in names.items()]
    timeline = Timeline([*stages, Stage("", "tables", "units", 1, 1.0)], run.clock)
    run.listen(timeline)
    for pair in "abc":
        timeline.begin(pair, "record", 32, "units")
        for batch in range(2):
            run.take(timeline, slow * 6)
            timeline.ready(16)
            for token in range(16):
                run.take(timeline, slow * (0.7 if token % 2 else 0.9) * (1 + 0.2 * batch))
                timeline.advance(1)
        run.stage(timeline, pair, "annotate", [slow * 18.0 / 32] * 32)
        run.stage(timeline, pair, "expand", [slow * (0.7 if unit % 2 else 1.4) for unit in range(32)])
    run.stage(timeline, "", "tables", [1.0])
    assert run.worst_after_a_tenth() < 2


@pytest.mark.parametrize("slow", [0.5, 6.0])
def test_right_to_a_factor_of_two_where_traces_are_there(slow: float) -> None:
    """Six pairs whose texts are recorded, of which half the annotations are missing."""
    run = Run()
    names = {"record": 60.0, "annotate": 30.0}
    stages = [of_models(name, 32, guess, pair) for pair in "abcdef" for name, guess in names.items()]
    timeline = Timeline(stages, run.clock)
    run.listen(timeline)
    for pair in "abcdef":
        run.stage(timeline, pair, "record", [])
        run.stage(timeline, pair, "annotate", [slow * 30 / 32] * 16)
    assert run.worst_after_a_tenth() < 2
