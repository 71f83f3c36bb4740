"""What was printed of real pairs, beside what the closed forms say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specdraft.errors import ConfigError, did_you_mean
from specdraft.theory.formulas import expected_tokens, speedup

ROUNDING = 0.005  # of an alpha or a cost that is printed with two decimals
PLACE = 0.05  # of a speed-up that is printed with one


@dataclass(frozen=True)
class Row:
    """A pair on a task: T5-XXL (11 billion numbers) with a smaller T5, batch 1, on a TPU (Leviathan et al. 2023).

    Attributes:
        task: EnDe, English to German (WMT), or CNNDM, summaries of CNN/DailyMail; both models were fine-tuned on it.
        temperature: of sampling.
        draft: the draft model, a T5 of this size.
        gamma: tokens of its chain.
        alpha, cost: as measured there, rounded to two decimals.
        expected: the speed-up that their table 4 expects; `measured`: the one that it reports.
    """

    task: str
    temperature: int
    draft: str
    gamma: int
    alpha: float
    cost: float
    expected: float
    measured: float

    @property
    def tokens(self) -> float:
        """Tokens per target call by the formula."""
        return expected_tokens(self.alpha, self.gamma)

    @property
    def speedup(self) -> float:
        """By the formula, with alpha and cost as they are printed."""
        return speedup(self.alpha, self.gamma, self.cost)

    @property
    def given(self) -> bool:
        """Whether that is the printed expectation."""
        return round(self.speedup, 1) == self.expected

    @property
    def given_unrounded(self) -> bool:
        """Whether some alpha and cost that are printed like these give it: more alpha gives more, more cost less."""
        least = speedup(self.alpha - ROUNDING, self.gamma, self.cost + ROUNDING)
        most = speedup(self.alpha + ROUNDING, self.gamma, self.cost - ROUNDING)
        return least <= self.expected + PLACE and most >= self.expected - PLACE

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        found = {name: getattr(self, name) for name in ("tokens", "speedup", "given", "given_unrounded")}
        return vars(self) | found


T5 = [
    Row("EnDe", 0, "small", 7, 0.75, 0.02, 3.2, 3.4),
    Row("EnDe", 0, "base", 7, 0.80, 0.04, 3.3, 2.8),
    Row("EnDe", 0, "large", 7, 0.82, 0.11, 2.5, 1.7),
    Row("EnDe", 1, "small", 7, 0.62, 0.02, 2.3, 2.6),
    Row("EnDe", 1, "base", 5, 0.68, 0.04, 2.4, 2.4),
    Row("EnDe", 1, "large", 3, 0.71, 0.11, 2.0, 1.4),
    Row("CNNDM", 0, "small", 5, 0.65, 0.02, 2.4, 3.1),
    Row("CNNDM", 0, "base", 5, 0.73, 0.04, 2.6, 3.0),
    Row("CNNDM", 0, "large", 3, 0.74, 0.11, 2.0, 2.2),
    Row("CNNDM", 1, "small", 5, 0.53, 0.02, 1.9, 2.3),
    Row("CNNDM", 1, "base", 3, 0.55, 0.04, 1.8, 2.2),
    Row("CNNDM", 1, "large", 3, 0.56, 0.11, 1.6, 1.7),
]
TABLES = {"t5": T5}


def table(name: str) -> list[Row]:
    """A published table; raises `ConfigError` where there is none of this name."""
    if name not in TABLES:
        raise ConfigError(f"--table {name}: no such table{did_you_mean(name, TABLES)}")
    return TABLES[name]
