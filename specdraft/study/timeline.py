"""How far a study is and how long it still takes: stages that were planned, and what they took so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, nan

ROWS = "rows"  # the unit of stages that make the rows of the study
OVERRUN = 0.1  # of the time since anything was done: so much is left at least, when all takes longer than expected
UNKNOWN = 0.5  # the same where nothing is done yet


@dataclass
class Stage:
    """Work of one kind, of one pair (or of none).

    Attributes:
        pair, name: which.
        unit: of what there is to do.
        due: how many units; what is planned may turn out to be there already.
        guess_s: seconds for all that was planned, before anything is known.
        by_models: models do it: what one such stage takes says how good the guesses of the others are.
        share: of what was planned, how much is due.
        most_s: it takes no longer, whatever the guess.
    """

    pair: str
    name: str
    unit: str
    due: float
    guess_s: float = 0.0
    by_models: bool = False
    share: float = 1.0
    most_s: float = inf
    begun: bool = False
    over: bool = False
    done: float = 0.0
    prepared: float = 0.0  # units that preparations were made for
    prepared_s: float = 0.0  # what these took
    worked_s: float = 0.0  # what the units that are done took
    open_s: float = 0.0  # since the last unit was done or prepared for

    @property
    def spent_s(self) -> float:
        """Seconds in this stage."""
        return self.prepared_s + self.worked_s + self.open_s

    @property
    def rate(self) -> float:
        """Units a second; NaN before the first one is done."""
        return self.done / self.worked_s if self.done and self.worked_s else nan

    @property
    def expected_s(self) -> float | None:
        """Seconds for all of it, by what is done; None where nothing is, or it was broken off."""
        if self.over:
            return self.spent_s if self.done >= self.due else None
        if not self.done or not self.due:
            return None
        preparing_s = self.prepared_s * max(1.0, self.due / self.prepared) if self.prepared else self.prepared_s
        return preparing_s + self.worked_s * max(1.0, self.due / self.done)


class Timeline:
    """All stages of a study in their order, one of which goes on.

    Args:
        stages: as planned.
        now: a clock.
    """

    def __init__(self, stages: Iterable[Stage] = (), now: Callable[[], float] = time.perf_counter) -> None:
        self.stages, self._now = list(stages), now
        self._interrupted: list[Stage] = []
        self._at = now()
        self.current: Stage | None = None

    def plan(self, stages: Iterable[Stage]) -> None:
        """What is going to happen."""
        self.stages += stages

    def begin(self, pair: str, name: str, due: float, unit: str) -> Stage:
        """A stage begins; one that is not finished goes on after it. What was planned before it does not happen."""
        self._pass()
        stage = self._planned(pair, name)
        stage.share = due / stage.due if stage.due else 1.0
        stage.begun, stage.due, stage.unit = True, due, unit
        if due <= 0:
            stage.over = True
            return stage
        if self.current is not None and not self.current.over:
            self._interrupted.append(self.current)
        self.current = stage
        return stage

    def _planned(self, pair: str, name: str) -> Stage:
        for index, stage in enumerate(self.stages):
            if (stage.pair, stage.name, stage.begun, stage.over) == (pair, name, False, False):
                for passed in self.stages[:index]:
                    passed.over |= not passed.begun
                return stage
        self.stages.append(Stage(pair, name, "", 0.0))
        return self.stages[-1]

    def leave(self) -> None:
        """Nothing that was begun goes on: another pair's turn."""
        self._pass()
        for stage in self.stages:
            stage.over |= stage.begun
        self._interrupted, self.current = [], None

    def ready(self, units: float) -> None:
        """What preceded so many units of the current stage is over."""
        self._pass()
        if (stage := self.current) is not None:
            stage.prepared += units
            stage.prepared_s, stage.open_s = stage.prepared_s + stage.open_s, 0.0

    def advance(self, units: float) -> None:
        """So many units of the current stage are done."""
        self._pass()
        if (stage := self.current) is not None:
            stage.done += units
            stage.worked_s, stage.open_s = stage.worked_s + stage.open_s, 0.0
            if stage.done >= stage.due:
                self._finish(stage)

    def advance_rows(self, rows: float, pair: str) -> None:
        """So many rows are done; or given up, because what was going on for them failed."""
        while self.current is not None and self.current.unit != ROWS:
            self._finish(self.current)
        if self.current is not None:
            self.advance(rows)
            return
        for stage in self.stages:
            if stage.unit == ROWS and stage.pair == pair and not stage.over:
                given_up = min(rows, stage.due)
                stage.guess_s *= 1 - given_up / stage.due
                stage.due, rows = stage.due - given_up, rows - given_up
                stage.over = stage.due <= 0

    def _finish(self, stage: Stage) -> None:
        stage.over = True
        while self._interrupted and self._interrupted[-1].over:
            self._interrupted.pop()
        self.current = self._interrupted.pop() if self._interrupted else None

    def _pass(self) -> None:
        now = self._now()
        if self.current is not None:
            self.current.open_s += now - self._at
        self._at = now

    def spent_s(self) -> dict[str, dict[str, float]]:
        """Pair -> stage -> seconds so far; of the stages that took any."""
        self._pass()
        spent: dict[str, dict[str, float]] = {}
        for stage in self.stages:
            if stage.spent_s:
                of_pair = spent.setdefault(stage.pair, {})
                of_pair[stage.name] = of_pair.get(stage.name, 0.0) + stage.spent_s
        return spent

    def left_s(self) -> float:
        """Seconds until all stages are over."""
        self._pass()
        return sum(self._left_of(stage) for stage in self.stages if not stage.over)

    @property
    def foreseen(self) -> bool:
        """Whether anything is known of how long the stage that goes on takes."""
        return self.current is None or self.current.expected_s is not None or self.current.guess_s > 0

    def _left_of(self, stage: Stage) -> float:
        expected = stage.expected_s
        if expected is None:
            expected = min(stage.guess_s * stage.share * self._scale(stage), stage.most_s)
        if not stage.begun:
            return expected
        return max(expected - stage.spent_s, stage.open_s * (OVERRUN if stage.done else UNKNOWN))

    def _scale(self, stage: Stage) -> float:
        """How much longer than guessed such a stage takes: by those of its name, else by all that models do.

        What is planned is there already to the share to which it was there in stages of its name.
        """
        known = [other for other in self.stages if other.begun and other.expected_s is not None]
        alike = [other for other in known if other.name == stage.name]
        if not stage.begun and (scale := _ratio(alike, [1.0] * len(alike))) is not None:
            return scale
        for some in (alike, [other for other in known if other.by_models and stage.by_models]):
            if (scale := _ratio(some, [other.share for other in some])) is not None:
                return scale
        return 1.0


def _ratio(stages: Sequence[Stage], shares: Sequence[float]) -> float | None:
    """Seconds that these stages take over what was guessed of so much of each; None where nothing was."""
    guessed = sum(stage.guess_s * share for stage, share in zip(stages, shares, strict=True))
    return sum(stage.expected_s or 0.0 for stage in stages if stage.guess_s) / guessed if guessed else None
