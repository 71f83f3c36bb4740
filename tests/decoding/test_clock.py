"""Seconds of a step's parts, with a device that works behind the host."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from specdraft.decoding import clock as clock_module
from specdraft.decoding.clock import ALONE, Clock, EventClock, Times, WaitingClock, step_clock


class Machine:
    """Host and device, each with its own seconds; the device does what is queued, one after another."""

    def __init__(self) -> None:
        self.now = self.done = self.left_out = 0.0
        self.waits = 0

    def work(self, queued_in: float, taken: float) -> None:
        """The host queues work, which the device then does."""
        self.now += queued_in
        self.done = max(self.done, self.now) + taken

    def wait(self) -> None:
        """Until the device has done all that is queued."""
        self.now = max(self.now, self.done)

    def event(self) -> Any:
        machine = self

        class Mark:
            def record(self) -> None:
                self.reached = max(machine.now, machine.done)

            def synchronize(self) -> None:
                machine.waits += self.reached > machine.now
                machine.now = max(machine.now, self.reached)

            def elapsed_time(self, end: Any) -> float:
                assert machine.now >= end.reached, "the device is not there yet"
                return 1000 * float(end.reached - self.reached)

        return Mark()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    one = Machine()
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(perf_counter=lambda: one.now))
    return one


def step(machine: Machine, clock: EventClock | WaitingClock, between: Callable[[], None] = lambda: None) -> list[float]:
    """Draft, verify, transfer, and what is queued for the next step."""
    clock.restart()
    machine.work(queued_in=0.25, taken=2.0)
    between()
    clock.lap()
    machine.work(queued_in=0.25, taken=4.0)
    clock.lap()
    machine.wait()
    machine.work(queued_in=0.5, taken=0.0)
    return clock.seconds()


def test_parts_are_those_of_the_device_and_nothing_waits_for_them(machine: Machine) -> None:
    clock = EventClock(machine.event)
    assert step(machine, clock) == [2.25, 4.0, 0.5]
    assert machine.waits == 0 and machine.now == 6.75
    machine.work(queued_in=0.0, taken=1.0)  # what a step leaves in the queue is in the next one's rest
    assert step(machine, clock) == [2.0, 4.0, 1.5]
    assert machine.waits == 0


def test_the_rest_of_a_step_is_what_passed_on_the_host(machine: Machine) -> None:
    clock = EventClock(machine.event)
    total = sum(sum(step(machine, clock)) for _ in range(5))
    assert total == pytest.approx(machine.now)


def test_seconds_that_are_left_out_are_in_no_part(machine: Machine) -> None:
    def capture() -> None:
        machine.now += 100.0
        machine.left_out += 100.0

    clock = EventClock(machine.event, lambda: machine.now - machine.left_out)
    assert step(machine, clock, capture) == pytest.approx([0.25, 4.25, 0.5])  # the device was done long before


def test_a_step_whose_outcome_nobody_waited_for_is_waited_for(machine: Machine) -> None:
    clock = EventClock(machine.event)
    clock.restart()
    machine.work(queued_in=0.0, taken=3.0)
    clock.lap()
    assert clock.seconds() == [3.0, 0.0] and machine.waits == 1


def test_who_times_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert isinstance(step_clock(cpu), WaitingClock)
    assert isinstance(step_clock(gpu), EventClock)
    assert isinstance(step_clock(gpu, Times(divided=True)), WaitingClock)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert isinstance(step_clock(gpu, ALONE), WaitingClock)


def test_on_a_processor_each_part_ends_when_it_is_done(machine: Machine) -> None:
    clock = WaitingClock(Clock(torch.device("cpu")))
    clock.restart()
    machine.now += 2.0
    clock.lap()
    machine.now += 3.0
    assert clock.seconds() == [2.0, 3.0]
