"""A study's rows: which are there, which are still to do."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from specdraft.drafters.pair import PairFiles
from specdraft.prompts import Prompt
from specdraft.results.comparisons import comparisons
from specdraft.results.journal import Journal, Row
from specdraft.results.tables import build_tables
from specdraft.study.combination import Combination
from specdraft.study.engines.base import DueRow, Work
from specdraft.study.plan import StudyPlan

PAIR_KEYS = ("pair", "target", "draft", "drafter", "dtype")


class StudyRows:
    """What the journal has of a plan's rows; new ones go there at once.

    Args:
        plan: the study.
        path: its journal.

    Attributes:
        reused: rows that were there before this run.
        done: rows that this run added.

    Raises:
        ResultsError: the journal cannot be written.
    """

    def __init__(self, plan: StudyPlan, path: Path) -> None:
        self._plan, self._journal = plan, Journal(path)
        self.done = 0
        self.reused = self.total - sum(map(self.missing, plan.combinations))

    @property
    def total(self) -> int:
        """Rows that the plan asks for."""
        return len(self._plan.combinations) * len(self._plan.prompts) * self._plan.settings.repeats

    @property
    def keys(self) -> Mapping[str, Mapping[str, Any]]:
        """Combination -> key columns, of earlier runs too."""
        return self._journal.combinations

    def add_combinations(self, combinations: Iterable[Combination]) -> None:
        """Write down what is going to run with which weights."""
        for combination in combinations:
            self._journal.add_combination(combination.keys, combination.weights)

    def add(self, rows: Iterable[Row]) -> None:
        """Write down finished rows."""
        for row in rows:
            self._journal.add_row(row)
            self.done += 1

    def missing(self, combination: Combination) -> int:
        """How many of a combination's rows are still to do."""
        return len(self._due(combination))

    def work(self, pair: PairFiles, combinations: Iterable[Combination]) -> Work:
        """What is still to do of these combinations, all of one pair and one engine."""
        chosen, settings = tuple(combinations), self._plan.settings
        due = frozenset(row for combination in chosen for row in self._due(combination))
        return Work(
            pair,
            tuple(self._plan.prompts),
            chosen,
            due,
            settings.seed,
            settings.repeats,
            with_steps=settings.output.steps,
        )

    def current(self, failed: Container[str]) -> list[Row]:
        """Every row, those of replaced weights and of `failed` combinations left out."""
        now = {tuple(c.keys[key] for key in PAIR_KEYS): c.pair.weights for c in self._plan.combinations}

        def is_current(row: Row) -> bool:
            keys = self.keys[row.combination]
            last = self._journal.weights[row.combination]
            pair = now.get(tuple(keys[key] for key in PAIR_KEYS), last[:2])
            return row.weights == (*pair, *last[2:])

        return [row for row in self._journal.rows.values() if row.combination not in failed and is_current(row)]

    def tables(self, failed: Container[str]) -> dict[str, pd.DataFrame]:
        """File name -> table, of the current rows."""
        seed = self._plan.settings.seed
        tables = build_tables(self.current(failed), self._journal.combinations, seed)
        return tables | {"comparisons.csv": comparisons(tables["records.csv"], seed)}

    def close(self) -> None:
        """Close the journal. Raises `ResultsError`."""
        self._journal.close()

    def _due(self, combination: Combination) -> list[DueRow]:
        return [
            DueRow(combination.identifier, prompt.prompt_id, repeat)
            for prompt in self._plan.prompts
            for repeat in range(self._plan.settings.repeats)
            if not self._has(combination, prompt, repeat)
        ]

    def _has(self, combination: Combination, prompt: Prompt, repeat: int) -> bool:
        row = self._journal.rows.get((combination.identifier, combination.weights, prompt.prompt_id, repeat))
        return row is not None and (row.steps is not None or not self._plan.settings.output.steps)
