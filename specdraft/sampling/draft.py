"""With which temperature a drafter draws: the target's, another one, or one that changes with the depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Any

from specdraft.errors import ConfigError
from specdraft.sampling.distribution import COLDEST, Sampling


@dataclass(frozen=True)
class Drawn:
    """What a drafter's distributions are standardised with: the target's setting, but for the temperature.

    Whatever it is, a lossless rule stays lossless: it knows the distribution that a child was drawn from.

    Attributes:
        temperatures: of children at depth 1, 2, ...; the last for all below. Empty: the target's.
        target: the target's, where there are others.
    """

    temperatures: tuple[float, ...] = ()
    target: float = 0.0

    @classmethod
    def of(cls, temperatures: float | Sequence[float] | None, sampling: Sampling) -> Drawn:
        """As it is said, in its shortest form: what the target's temperature says anyway is left out.

        Raises:
            ConfigError: it is no temperature, and no list of them.
        """
        if temperatures is None:
            return AS_TARGET
        said = list(temperatures) if isinstance(temperatures, Sequence) else [temperatures]
        if isinstance(temperatures, str) or not said or not all(map(_is_temperature, said)):
            raise ConfigError(
                f"sampling.draft_temperature={temperatures} is out of range; expected 0 (the drafter's best token), a "
                f"finite number of at least {COLDEST}, or a list of them, one for each depth"
            )
        said = [float(f"{temperature:.6g}") for temperature in said]  # as tables and traces call them
        while len(said) > 1 and said[-1] == said[-2]:
            said.pop()
        return AS_TARGET if said == [sampling.temperature] else cls(tuple(map(float, said)), sampling.temperature)

    def at(self, depth: int, sampling: Sampling) -> Sampling:
        """What children at a depth are drawn with, beside a target's setting."""
        if not self.temperatures:
            return sampling
        return replace(sampling, temperature=self.temperatures[min(depth, len(self.temperatures)) - 1])

    @property
    def levels(self) -> list[Drawn]:
        """One for each depth, each the same for all depths; the last for all below."""
        every = [AS_TARGET if one == self.target else Drawn((one,), self.target) for one in self.temperatures]
        return every or [self]

    def coldest(self, sampling: Sampling) -> float:
        """The lowest temperature of any depth."""
        return min(self.temperatures, default=sampling.temperature)

    @property
    def label(self) -> str:
        """What the `draft_temperature` column says: nothing, `0.6`, or `1-0.8-0.6`."""
        return "-".join(f"{temperature:.6g}" for temperature in self.temperatures)

    @property
    def said(self) -> str:
        """As it would be said again: `0.6`, or `[1,0.8,0.6]`."""
        return self.label if len(self.temperatures) < 2 else f"[{self.label.replace('-', ',')}]"


AS_TARGET = Drawn()


def _is_temperature(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and (value == 0 or (value >= COLDEST and isfinite(value)))


@dataclass
class PairSampling(Sampling):
    """How both models' tokens are chosen: what `sampling` says.

    Attributes:
        draft_temperature: of the drafter: a number, or a list with one for each depth, of which the last holds for all
            below; left out: the target's.
    """

    draft_temperature: Any = None

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        super().check()
        _ = self.drawn

    @cached_property
    def target(self) -> Sampling:
        """What the target's tokens are chosen with."""
        return Sampling(self.temperature, self.top_k, self.top_p)

    @cached_property
    def drawn(self) -> Drawn:
        """What children are drawn with. Raises `ConfigError`."""
        return Drawn.of(self.draft_temperature, self.target)
