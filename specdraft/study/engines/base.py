"""What an engine is given, and what it says of it.

An engine writes into no study folder and changes nothing that it is given, so a unit of work can be sent to
another process, which loads the pair itself and sends the events back.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from specdraft.bench.curve import CostCurve
from specdraft.drafters.pair import Pair, PairFiles
from specdraft.prompts import Prompt
from specdraft.replay.calibration import Calibration
from specdraft.replay.folds import halves
from specdraft.results.journal import Row
from specdraft.results.parts import ReplayedRows
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import Combination

Due = Mapping[tuple[str, int], frozenset[str]]  # combination and repeat -> the prompts whose rows are still to do


@dataclass(frozen=True)
class Work:
    """What one engine has to do with one pair.

    Attributes:
        pair: its files; whoever runs the engine loads them.
        prompts: all of the study's, whatever is due: fitted trees are chosen on some and scored on the others.
        combinations: of this pair and this engine. How prompts are encoded is in their settings.
        due: the rows to make; who has none is not there.
        seed: the study's.
        repeats: texts of each prompt.
        with_steps: list the verification steps in the rows.
    """

    pair: PairFiles
    prompts: tuple[Prompt, ...]
    combinations: tuple[Combination, ...]
    due: Due
    seed: int
    repeats: int
    with_steps: bool

    def without(self, names: Container[str]) -> Work:
        """The work on the other prompts."""
        return replace(self, prompts=tuple(p for p in self.prompts if p.prompt_id not in names))

    @property
    def halves(self) -> np.ndarray:
        """`[P]` the half that each prompt is in: it is scored with what is fitted on the other one."""
        return halves(self.prompts, self.seed)

    def due_prompts(self, combination: Combination, repeat: int) -> frozenset[str]:
        """The prompts whose row in a repeat is to be made."""
        return self.due.get((combination.identifier, repeat), frozenset())

    def is_due(self, combination: Combination, prompt: Prompt, repeat: int) -> bool:
        """Whether this row is to be made."""
        return prompt.prompt_id in self.due_prompts(combination, repeat)

    def due_of(self, combinations: Iterable[Combination], prompt: Prompt, repeat: int) -> list[Combination]:
        """Those of which this row is to be made."""
        return [combination for combination in combinations if self.is_due(combination, prompt, repeat)]

    def due_rows(self, combination: Combination, repeats: Iterable[int]) -> int:
        """How many rows of a combination are to be made in these repeats."""
        return sum(len(self.due_prompts(combination, repeat)) for repeat in repeats)

    def draw(self, repeat: int) -> str:
        """Names one of the sampled texts of a prompt."""
        return f"{self.seed}/{repeat}"


class Done(NamedTuple):
    """Rows that were finished together: twins that were decoded once."""

    rows: list[Row]


class Replayed(NamedTuple):
    """Rows that were replayed together, to be written as a whole."""

    rows: list[ReplayedRows]

    @property
    def prompts(self) -> int:
        """How many rows they are: one a prompt."""
        return sum(len(rows.prompt_ids) for rows in self.rows)


class Failed(NamedTuple):
    """A combination that failed; `rows` of it were due and are not made now."""

    combination: str
    prompt_id: str | None
    error: str
    rows: int


class GivenUp(NamedTuple):
    """So many rows were due and not tried: their combinations failed on a prompt before."""

    rows: int


class TextCalibration(NamedTuple):
    """A fitted temperature, and which texts it was fitted to.

    Attributes:
        texts: the settings that they were made with.
        fitted: see `Calibration`.
    """

    texts: str
    fitted: Calibration

    @classmethod
    def of(cls, sampling: Sampling, max_new_tokens: int, draw: str, fitted: Calibration) -> TextCalibration:
        """Of the texts of one sampling setting; `draw` names those that can be sampled."""
        drawn = "greedy" if sampling.greedy else f"{sampling}, text {draw}"
        return cls(f"{drawn}, {max_new_tokens} tokens", fitted)


class LeftOut(NamedTuple):
    """Prompts of a pair without a usable text: their rows are not made, those of the others are.

    Attributes:
        pair: its label.
        why: prompt id -> the reason.
        rows: that were due of these prompts.
    """

    pair: str
    why: dict[str, str]
    rows: int


class Measured(NamedTuple):
    """What was measured of a pair besides its rows.

    Attributes:
        costs: None where nobody wants them.
        near_ties: of its recorded greedy texts; None where texts are sampled.
        calibrations: what its scores were fitted to, text by text: see `TextCalibration`.
        reliability: how well its scores tell what is accepted, see `results.kept_tables.RELIABILITY`; None where
            nobody ranks by them.
        offsets: its acceptance by the distance from the root, see `results.kept_tables.OFFSETS`; None where texts are
            sampled, or it proposes from tokens without ranks.
        predictors: what ranks or prunes in their place, by name, with its memory (see `predictors_used`).
    """

    pair: str
    costs: CostCurve | None = None
    near_ties: dict[str, Any] | None = None
    calibrations: Sequence[TextCalibration] = ()
    reliability: pd.DataFrame | None = None
    predictors: dict[str, dict[str, Any]] | None = None
    offsets: pd.DataFrame | None = None


Event = Done | Replayed | Failed | GivenUp | LeftOut | Measured


class Engine(Protocol):
    """One way to make rows."""

    def run(self, work: Work, pair: Pair) -> Iterator[Event]:
        """Make the rows that are due. What goes wrong in a combination is an event; the others go on.

        Args:
            work: what to do.
            pair: `work.pair` with its weights in memory.

        Raises:
            ResultsError: traces cannot be written.
            LoadError: a model is needed and cannot be loaded.
        """
        ...
