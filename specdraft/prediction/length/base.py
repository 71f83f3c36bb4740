"""What a length policy is.

A policy says how many tokens the chain of each step has, at most `budget`. It is a value; what it learns in a text is
the state of that text (`Lengths`). To add one, write a file in this folder with a dataclass that derives from
`LengthPolicy`, gives `kind` a value and says what `begin` begins, and put a YAML of the same name in `configs/length/`.
The fields of the dataclass are the parameters that users may set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from specdraft.config import label
from specdraft.errors import ConfigError


class Said(NamedTuple):
    """What the drafter said of the first n tokens of a chain: of its most probable ones by softmax at temperature 1, of
    drawn ones in the distributions that they were drawn from.

    Attributes:
        log_prob: `[n]` float64, the logarithms of the cumulative probabilities.
        entropy: `[n]` float32, of each token's distribution, in nats; 0 where nobody reads it.
    """

    log_prob: np.ndarray
    entropy: np.ndarray

    @property
    def probs(self) -> np.ndarray:
        """`[n]` each token's own probability."""
        probs: np.ndarray = np.exp(np.diff(self.log_prob, prepend=0.0))
        return probs

    def then(self, log_prob: float, entropy: float) -> Said:
        """With one more token, by its own probability."""
        before = self.log_prob[-1] if len(self.log_prob) else 0.0
        return Said(np.append(self.log_prob, before + log_prob), np.append(self.entropy, np.float32(entropy)))

    def first(self, count: int) -> Said:
        """Of the first `count` tokens."""
        return Said(self.log_prob[:count], self.entropy[:count])


def unread(count: int) -> Said:
    """Of so many tokens that nobody looks at."""
    return Said(np.zeros(count), np.zeros(count, dtype=np.float32))


NOTHING_SAID = unread(0)


class Lengths(ABC):
    """How long the chains of one text are, step by step: `next`, then `ends` while one is drafted, then `observe`."""

    @abstractmethod
    def next(self) -> int:
        """The most tokens of the next chain, 0 or more."""

    def ends(self, said: Said) -> np.ndarray:
        """`[n]` bool: whether drafting ends after each token. It says so of a token by that one and those before it,
        so the same answer comes while a chain is drafted and along a recorded one."""
        return np.zeros(len(said.log_prob), dtype=bool)

    def observe(self, accepted: int, said: Said) -> None:  # noqa: B027  (most states forget)
        """A chain of `len(said.log_prob)` tokens was sent, and so many of them were accepted."""

    def length(self, said: Said) -> int:
        """How many tokens are sent, of a drafter that would say this of the first `next` ones."""
        ends = self.ends(said)
        return int(ends.argmax()) + 1 if ends.any() else len(ends)


@dataclass
class LengthPolicy(ABC):
    """How many tokens the chain of each step has.

    Attributes:
        kind: the policy's name.
        watches: it looks at what the drafter says between tokens; `reads_entropy`: at its entropy too.
        needs_costs: it weighs what steps cost.
        hindsight: it knows what will be accepted, as only a recorded text does.
    """

    kind: str = ""
    watches: ClassVar[bool] = False
    reads_entropy: ClassVar[bool] = False
    needs_costs: ClassVar[bool] = False
    hindsight: ClassVar[bool] = False

    @abstractmethod
    def begin(self, budget: int, step_s: np.ndarray | None = None) -> Lengths:
        """The state of a text before its first step.

        Args:
            budget: the most tokens of a chain.
            step_s: `[budget + 1]` seconds of a step with so many draft tokens, for a policy that needs them.
        """

    def fixed(self, budget: int, batch: int) -> int | None:
        """The length of every chain where it never differs; None where it does.

        `batch`: texts that go together.
        """
        return None

    @property
    def sizes(self) -> bool:
        """Whether lengths can differ from step to step."""
        return self.fixed(1, 1) is None

    @property
    def usual(self) -> bool:
        """Whether it is no policy at all: every chain is as long as the budget."""
        return False

    @property
    def adapts(self) -> bool:
        """Whether it learns from the steps of a text."""
        return False

    @property
    def may_be_empty(self) -> bool:
        """Whether a step can send nothing."""
        return False

    def misfit(self, budget: int, batch: int) -> str | None:
        """Why it does not go with a budget or a batch, or None."""
        return None

    @property
    def label(self) -> str:
        """What the `length` column says: the kind, and the parameters that differ from their defaults."""
        return label(self)

    def identity(self) -> dict[str, Any]:
        """The parameters that decide how long chains are."""
        return asdict(self)

    def check(self) -> None:  # noqa: B027  (some have no parameters)
        """Raise `ConfigError` for parameters out of range."""

    def refuse(self, name: str, expected: str) -> ConfigError:
        """The error of a parameter out of range."""
        return ConfigError(f"length.{name}={getattr(self, name)} is out of range; expected {expected}")


def check_share(policy: LengthPolicy, name: str) -> None:
    """Raise `ConfigError` unless a parameter is in [0, 1]."""
    if not 0 <= getattr(policy, name) <= 1:
        raise policy.refuse(name, "0 to 1")
