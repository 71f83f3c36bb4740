"""Ways to decode the same prompts, timed in turns, so that a slow minute of the machine meets all of them alike.

Letters in shapes: R rounds, P prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from specdraft.errors import ConfigError, UserError
from specdraft.prompts import Prompt
from specdraft.results.bounds import students
from specdraft.results.metrics import Tally
from specdraft.traces.watch import UNWATCHED, Watch

FEWEST_ROUNDS = 2  # one says nothing of what timing alone makes of a figure


class Decoded(NamedTuple):
    """A prompt's continuation, and what happened on the way."""

    tokens: list[int]
    tally: Tally


@dataclass(frozen=True)
class Method:
    """A way to decode.

    Attributes:
        name: of its row.
        decode: a prompt's turn; raises `UserError` where the method cannot go on.
        lossless: its text must be that of plain decoding.
    """

    name: str
    decode: Callable[[Prompt], Decoded]
    lossless: bool = True


class Measured(NamedTuple):
    """One method, prompt and round; `tally.plain_s` is plain decoding's in the same turn."""

    method: str
    prompt: Prompt
    round: int
    tally: Tally


@dataclass
class Until:
    """When rounds end: all speed-ups are narrow, or one of the limits is met.

    Attributes:
        width: how wide the 95 % interval of a speed-up may be that timing alone leaves it, as a share of it.
        max_rounds: so many rounds at most.
        max_s: no prompt's turn begins after so many seconds; the first round is always finished.
    """

    width: float = 0.05
    max_rounds: int = 6
    max_s: float = 240.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        if not 0 < self.width < np.inf:
            raise ConfigError(f"bench.width={self.width} is out of range; expected a number above 0")
        if self.max_rounds < 1:
            raise ConfigError(f"bench.max_rounds={self.max_rounds} is out of range; expected 1 or more")
        if not self.max_s > 0:
            raise ConfigError(f"bench.max_s={self.max_s} is out of range; expected seconds, above 0")


@dataclass
class Rounds:
    """Rounds of turns: in a turn every method decodes one prompt, and the one that begins moves on by one each time.

    Args:
        plain: the target alone, which the others are compared with.
        others: the other methods.
        prompts: P of them.
        same: given a prompt and two texts, of plain decoding and of a lossless method, where they differ by a tie
            that rounding decides; None: nowhere. Raises `UserError` for any other difference.
        watch: told of every round.
        now: a clock.

    Attributes:
        measured: what was measured so far.
        ties: where texts differ and rounding decides.
        failed: method -> why it ended; none of its turns is in `measured`.
    """

    plain: Method
    others: Sequence[Method]
    prompts: Sequence[Prompt]
    same: Callable[[Prompt, list[int], list[int]], dict[str, Any] | None]
    watch: Watch = UNWATCHED
    now: Callable[[], float] = time.perf_counter
    measured: list[Measured] = field(default_factory=list)
    ties: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    _texts: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def run(self, until: Until) -> None:
        """Measure; what is measured when it is interrupted stays."""
        begun, turn = self.now(), 0
        for number in range(until.max_rounds):
            if number >= FEWEST_ROUNDS and self.widest <= until.width:
                return
            self.watch.stage(f"round {number + 1}", len(self.prompts), "prompts")
            for prompt in self.prompts:
                if number and self.now() - begun > until.max_s:
                    return
                self._turn(prompt, number, turn)
                self.watch.done(1)
                turn += 1

    def _turn(self, prompt: Prompt, number: int, turn: int) -> None:
        going = [self.plain, *(method for method in self.others if method.name not in self.failed)]
        first = turn % len(going)
        decoded = dict(self._decode(method, prompt) for method in [*going[first:], *going[:first]])
        plain = decoded[self.plain.name]
        assert plain is not None, "what plain decoding raises ends the run"
        for method in going:
            if (text := decoded[method.name]) is not None and self._is_right(method, prompt, plain.tokens, text.tokens):
                tally = replace(text.tally, plain_s=plain.tally.wall_s)
                self.measured.append(Measured(method.name, prompt, number, tally))

    def _decode(self, method: Method, prompt: Prompt) -> tuple[str, Decoded | None]:
        try:
            return method.name, method.decode(prompt)
        except UserError as error:
            if method is self.plain:
                raise
            self._fail(method, f"prompt {prompt.prompt_id}: {error}")
            return method.name, None

    def _is_right(self, method: Method, prompt: Prompt, plain: list[int], text: list[int]) -> bool:
        """Whether a text is what the method promises; one that was seen before is not looked at again."""
        if not method.lossless or self._texts.get((method.name, prompt.prompt_id)) == text:
            return True
        try:
            tie = self.same(prompt, plain, text)
        except UserError as error:
            self._fail(method, f"prompt {prompt.prompt_id}: {error}")
            return False
        self.ties += [{"method": method.name, "prompt_id": prompt.prompt_id} | tie] if tie else []
        self._texts[method.name, prompt.prompt_id] = text
        return True

    def _fail(self, method: Method, why: str) -> None:
        self.failed[method.name] = why
        self.measured = [one for one in self.measured if one.method != method.name]

    @property
    def widths(self) -> dict[str, float]:
        """Method -> see `timing_width`, as a share of its speed-up; of the methods that are compared with plain
        decoding."""
        seconds = self._seconds()
        plain = seconds.pop(self.plain.name, np.empty((0, 0)))
        return {name: timing_width(plain, own) for name, own in seconds.items()}

    @property
    def widest(self) -> float:
        """The largest of the widths."""
        return max(self.widths.values(), default=0.0)

    def _seconds(self) -> dict[str, np.ndarray]:
        """Method -> `[R, P]` of the whole rounds."""
        rounds: dict[str, dict[int, list[float]]] = {}
        for one in self.measured:
            rounds.setdefault(one.method, {}).setdefault(one.round, []).append(one.tally.wall_s)
        whole = {
            name: [walls for walls in of_round.values() if len(walls) == len(self.prompts)]
            for name, of_round in rounds.items()
        }
        return {name: np.array(walls).reshape(-1, len(self.prompts)) for name, walls in whole.items()}


def timing_width(plain: np.ndarray, own: np.ndarray) -> float:
    """How wide the 95 % interval of a speed-up is, as a share of it, if the prompts are no sample but all there is.

    More rounds make it narrower; what differs between prompts they leave as it is. By what `plain - speedup * own` of a
    prompt varies by between rounds, as in Fieller's interval of a ratio of sums.

    Args:
        plain, own: `[R, P]` seconds of the same turns.
    """
    rounds, prompts = own.shape
    if rounds < FEWEST_ROUNDS:
        return float("inf")
    speedup = plain.sum() / own.sum()
    varies = (plain - speedup * own).var(axis=0, ddof=1).sum() / rounds  # of the sum over prompts of means over rounds
    quantile = float(students(prompts * (rounds - 1)))
    return float(2 * quantile * np.sqrt(varies) / plain.mean(axis=0).sum())


def typical(measured: Sequence[Measured]) -> Iterator[Measured]:
    """Of each method and prompt the round of the median time (of two the quicker one), beside plain decoding's."""
    turns: dict[tuple[str, str], list[Measured]] = {}
    for one in measured:
        turns.setdefault((one.method, one.prompt.prompt_id), []).append(one)
    for rounds in turns.values():
        middle = (len(rounds) - 1) // 2
        plain_s = sorted(one.tally.plain_s for one in rounds)[middle]
        one = sorted(rounds, key=lambda one: one.tally.wall_s)[middle]
        yield one._replace(tally=replace(one.tally, plain_s=plain_s))
