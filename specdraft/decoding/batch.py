"""Texts that are decoded side by side, each by the one decoding loop.

Every text runs in a greenlet of its own, which stops where the text needs a forward. When all wait, the forwards of one
model that they wait for are run as one: prompts first, then the drafters' models, the target when no drafter waits any
more, so that texts stay together. A text that ends gives its place to the next one at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from greenlet import getcurrent, greenlet

from specdraft.decoding.clock import Times
from specdraft.decoding.seat import Seat
from specdraft.decoding.verifier import Verifier
from specdraft.drafters import Drafter
from specdraft.models.batched_model import BatchedModel, Prefill, Request
from specdraft.models.cached_model import CachedModel
from specdraft.models.language_model import Forward

T = TypeVar("T")


class SharedClock:
    """Each moment is divided among the texts that are decoded in it."""

    def __init__(self) -> None:
        self._texts, self._running = 0, False
        self._share = self._passed = self._last = 0.0

    @property
    def times(self) -> Times:
        """What a text is told of the time."""
        return Times(self._now_shared, self._now_passed, divided=True)

    def _now_shared(self) -> float:
        self._advance()
        return self._share

    def _now_passed(self) -> float:
        self._advance()
        return self._passed

    def _advance(self) -> None:
        now = time.perf_counter()
        if self._running and self._texts:
            self._passed += now - self._last
            self._share += (now - self._last) / self._texts
        self._last = now

    def count(self, texts: int) -> None:
        """So many texts are there from now on."""
        self._advance()
        self._texts = texts

    @contextmanager
    def going(self) -> Iterator[None]:
        """The time between is counted."""
        self._advance()
        self._running = True
        try:
            yield
        finally:
            self._advance()
            self._running = False


Text = Callable[[Seat], T]


class Ended(NamedTuple, Generic[T]):
    """A text that is over: what it came to, or what went wrong; `number` counts the texts from 0."""

    number: int
    result: T | None
    error: Exception | None = None


@dataclass
class _Running:
    """A text in its seat, and what it waits for."""

    number: int
    task: greenlet
    request: Request | None = None


class Batch(Generic[T]):
    """Seats for texts, and the models that they share.

    Args:
        target: the target.
        drafter: what each text's drafter is made of; None: texts are decoded plainly.
        seats: how many texts go together.
    """

    def __init__(self, target: CachedModel, drafter: Drafter | None, seats: int) -> None:
        self._clock, self._count = SharedClock(), seats
        self._models: list[BatchedModel] = []  # in the order in which they are run
        own = [drafter.another(partial(self._row, seat)) if drafter else None for seat in range(seats)]
        layers = drafter.traits.hidden_layers if drafter else ()
        verifiers = [Verifier(self._row(seat, target), layers) for seat in range(seats)]
        self._seats = [Seat(*both, self._clock.times) for both in zip(verifiers, own, strict=True)]
        self._running: dict[int, _Running] = {}  # by seat

    def _row(self, seat: int, model: CachedModel) -> CachedModel:
        """A seat's own row of a model."""
        for batched in self._models:
            if batched.model is model:
                return batched.rows[seat]
        self._models.append(BatchedModel(model, self._count, _ask))
        return self._models[-1].rows[seat]

    def decode(self, texts: Iterable[Text[T]]) -> Iterator[Ended[T]]:
        """Every text, as they end; what is done between two of them takes no time of theirs.

        Args:
            texts: what decodes one of them in a seat; the next one is asked for when a seat is free.
        """
        with closing(self._ends(texts)) as ends:
            while True:
                with self._clock.going():
                    ended = next(ends, None)
                if ended is None:
                    return
                yield ended

    def _ends(self, texts: Iterable[Text[T]]) -> Generator[Ended[T]]:
        coming = enumerate(texts)
        try:
            while True:
                free = [seat for seat in range(self._count) if seat not in self._running]
                starting = list(zip(free, coming, strict=False))
                for seat, (number, text) in starting:
                    self._running[seat] = _Running(number, greenlet(text))
                    yield from self._go_on(seat, "switch", self._seats[seat])
                if not (starting or self._running):
                    return
                yield from self._run(self._together())
        finally:
            for running in self._running.values():
                running.task.throw()
            self._running = {}

    def _go_on(self, seat: int, how: str, given: Any) -> Iterator[Ended[T]]:
        """A text runs to its next forward, or to its end, which makes its seat free."""
        running = self._running[seat]
        self._clock.count(len(self._running))
        try:
            said = getattr(running.task, how)(given)
            ended = Ended(running.number, said)
        except Exception as error:  # whatever goes wrong in one text must not stop the others
            ended = Ended(running.number, None, error)
        if not running.task.dead:
            running.request = said
            return
        del self._running[seat]
        self._clock.count(len(self._running))
        yield ended

    def _together(self) -> dict[int, Request]:
        """What is run now, by seat: the prompt of the text that came first, or all that is asked of one model."""
        waiting = {seat: running.request for seat, running in self._running.items() if running.request is not None}
        for seat, request in waiting.items():
            if isinstance(request, Prefill):
                return {seat: request}
        for model in self._models:
            asked = {seat: request for seat, request in waiting.items() if request.row.batch is model}
            if asked:
                layers = next(iter(asked.values())).layers
                return {seat: request for seat, request in asked.items() if request.layers == layers}
        return {}

    def _run(self, requests: Mapping[int, Request]) -> Iterator[Ended[T]]:
        if not requests:
            return
        batched = next(iter(requests.values())).row.batch
        try:
            said = batched.run(list(requests.values()))
        except Exception as error:  # of all texts that asked
            for seat in requests:
                yield from self._go_on(seat, "throw", error)
            return
        for seat, forward in zip(requests, said, strict=True):
            yield from self._go_on(seat, "switch", forward)


def _ask(request: Request) -> Forward:
    """Wait for a forward; meanwhile other texts run, none of them in this one's mode of inference."""
    with torch.inference_mode(False):
        said: Forward = getcurrent().parent.switch(request)
    return said
