"""A study's rows: which are there, which are still to do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from specdraft.drafters.pair import PairFiles
from specdraft.results.comparisons import comparisons
from specdraft.results.journal import Journal, Row
from specdraft.results.parts import Key, Parts
from specdraft.results.tables import build_tables
from specdraft.study.combination import Combination
from specdraft.study.engines.base import Replayed, Work
from specdraft.study.folder import JOURNAL, PARTS
from specdraft.study.plan import StudyPlan

PAIR_KEYS = ("pair", "target", "draft", "drafter", "dtype")


class Current(NamedTuple):
    """The rows that stand: of no combination that failed, and of no weights that were replaced.

    Attributes:
        rows: of the journal.
        replayed: which of the parts.
        counts: combination -> how many rows.
        prompts: combination -> of how many prompts.
    """

    rows: list[Row]
    replayed: list[Key]
    counts: dict[str, int]
    prompts: dict[str, int]

    @property
    def timed_out(self) -> list[bool]:
        """Of each live text, whether it ended because its time was over."""
        return [row.timed_out for row in self.rows]

    @property
    def ties(self) -> list[dict[str, Any]]:
        """Where live text differs from plain decoding, and rounding decides."""
        return [{"combination": r.combination, "prompt_id": r.prompt_id} | r.tie for r in self.rows if r.tie]


class StudyRows:
    """What a study's folder has of a plan's rows; new ones go there at once.

    Args:
        plan: the study.
        out: its folder.

    Attributes:
        reused: rows that were there before this run.
        done: rows that this run added.
        damaged: a line for each file whose rows have to be made again.

    Raises:
        ResultsError: a file cannot be read or written.
    """

    def __init__(self, plan: StudyPlan, out: Path) -> None:
        self._plan, self._journal, self._parts = plan, Journal(out / JOURNAL), Parts(out / PARTS)
        self._prompts = frozenset(prompt.prompt_id for prompt in plan.prompts)
        self.damaged = self._parts.remove_damaged()
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
        self._journal.add_combinations((combination.keys, combination.weights) for combination in combinations)

    def add(self, rows: Iterable[Row]) -> None:
        """Write down finished rows."""
        for row in rows:
            self._journal.add_row(row)
            self.done += 1

    def add_replayed(self, replayed: Replayed) -> None:
        """Write down rows that were replayed together."""
        self._parts.add(replayed.rows)
        self.done += replayed.prompts

    def missing(self, combination: Combination) -> int:
        """How many of a combination's rows are still to do."""
        return sum(len(self._due(combination, repeat)) for repeat in range(self._plan.settings.repeats))

    def work(self, pair: PairFiles, combinations: Iterable[Combination]) -> Work:
        """What is still to do of these combinations, all of one pair and one engine."""
        chosen, settings = tuple(combinations), self._plan.settings
        due = {
            (combination.identifier, repeat): prompts
            for combination in chosen
            for repeat in range(settings.repeats)
            if (prompts := self._due(combination, repeat))
        }
        return Work(
            pair,
            tuple(self._plan.prompts),
            chosen,
            due,
            settings.seed,
            settings.repeats,
            with_steps=settings.output.steps,
        )

    def current(self, failed: Container[str]) -> Current:
        """Every row, those of replaced weights and of `failed` combinations left out."""
        now = {tuple(c.keys[key] for key in PAIR_KEYS): c.pair.weights for c in self._plan.combinations}

        def stands(combination: str, weights: tuple[str, ...]) -> bool:
            if combination in failed or combination not in self.keys:
                return False
            keys, last = self.keys[combination], self._journal.weights[combination]
            pair = now.get(tuple(keys[key] for key in PAIR_KEYS), last[:2])
            return weights == (*pair, *last[2:])

        rows = [row for row in self._journal.rows.values() if stands(row.combination, row.weights)]
        replayed = [key for key in self._parts if stands(*key[:2])]
        counts, prompts = Counter(row.combination for row in rows), defaultdict[str, set[str]](set)
        for row in rows:
            prompts[row.combination].add(row.prompt_id)
        for key in replayed:
            for stored in self._parts.of(key):
                counts[key[0]] += len(stored.prompt_ids)
                prompts[key[0]] |= stored.prompt_ids
        return Current(rows, replayed, dict(counts), {name: len(ids) for name, ids in prompts.items()})

    def tables(self, failed: Container[str]) -> dict[str, pd.DataFrame]:
        """File name -> table, of the current rows. Raises `ResultsError`."""
        current = self.current(failed)
        tables = build_tables(current.rows, self.keys, self._parts.read(current.replayed))
        return tables | {"comparisons.csv": comparisons(tables["records.csv"])}

    def close(self) -> None:
        """Close the journal. Raises `ResultsError`."""
        self._journal.close()

    def _due(self, combination: Combination, repeat: int) -> frozenset[str]:
        """The prompts whose row in a repeat is still to do."""
        name, weights = combination.identifier, combination.weights
        with_steps = self._plan.settings.output.steps
        if combination.engine == "replay":
            due = self._prompts
            again = self._plan.settings.cost.measure == "again"  # what is not estimated is replayed for that
            for stored in self._parts.of((name, weights, repeat)):
                if stored.with_steps >= with_steps and stored.estimated >= again:
                    due = due - stored.prompt_ids
            return due
        there = {prompt: self._journal.rows.get((name, weights, prompt, repeat)) for prompt in self._prompts}
        return frozenset(prompt for prompt, row in there.items() if row is None or (with_steps and row.steps is None))
