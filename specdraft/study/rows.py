"""A study's rows: which are there, which are still to do."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from specdraft.drafters.pair import PairFiles
from specdraft.results.comparisons import Comparisons
from specdraft.results.journal import Journal, Kept, Key, Row
from specdraft.results.parts import Parts
from specdraft.results.tables import build_tables
from specdraft.study.combination import Combination
from specdraft.study.engines.base import Replayed, Work
from specdraft.study.folder import JOURNAL, PARTS
from specdraft.study.plan import StudyPlan

ROWS_AT_ONCE = 50_000  # whose tables are made together
PAIR_KEYS = ("pair", "target", "draft", "drafter", "dtype")


class Current(NamedTuple):
    """The rows that stand: of no combination that failed, and of no weights that were replaced.

    Attributes:
        keys: combination -> which of its rows.
        counts: combination -> how many rows.
        prompts: combination -> of how many prompts.
        timed_out: of each live text, whether it ended because its time was over.
        ties: where live text differs from plain decoding, and rounding decides.
    """

    keys: dict[str, list[Key]]
    counts: dict[str, int]
    prompts: dict[str, int]
    timed_out: list[bool]
    ties: list[dict[str, Any]]


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
        self._place = {prompt.prompt_id: place for place, prompt in enumerate(plan.prompts)}
        self._prompts = frozenset(self._place)
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

        keys: dict[str, list[Key]] = {}
        for key in dict.fromkeys([*self._journal, *self._parts]):
            if stands(*key[:2]):
                keys.setdefault(key[0], []).append(key)
        found = Current({name: keys[name] for name in self.keys if name in keys}, {}, {}, [], [])
        for name, of_name in found.keys.items():
            there = [*self._prompts_of(of_name)]
            found.counts[name] = sum(map(len, there))
            found.prompts[name] = len(there[0] if len(there) == 1 else frozenset().union(*there))
            for key in of_name:
                for prompt, kept in self._journal.of(key).items():
                    found.timed_out.append(kept.timed_out)
                    if kept.tie:
                        found.ties.append({"combination": name, "prompt_id": prompt} | kept.tie)
        return found

    def _prompts_of(self, keys: Iterable[Key]) -> Iterator[Collection[str]]:
        """Of each set of rows that lie together."""
        for key in keys:
            if live := self._journal.of(key).keys():
                yield live
            yield from (stored.prompt_ids for stored in self._parts.of(key))

    def tables(self, current: Current, at_once: int = ROWS_AT_ONCE) -> Iterator[dict[str, pd.DataFrame]]:
        """The tables of the current rows, by their file's name, in pieces: of some combinations each, in the order in
        which they were written down; the comparisons, which are of all, come last. Raises `ResultsError`.

        Args:
            current: see there.
            at_once: rows of a piece, about; a combination is never in two.
        """
        compared = Comparisons()
        for names in _together(current.counts, at_once):
            made = self.tables_of(current, names)
            compared.add(made["records.csv"])
            yield made
        yield {"comparisons.csv": compared.table()}

    def tables_of(self, current: Current, names: Collection[str]) -> dict[str, pd.DataFrame]:
        """The tables of some combinations, all but the comparisons. Raises `ResultsError`."""
        keys = [key for name in names for key in current.keys.get(name, ())]
        rows = self._journal.read(kept for key in keys for kept in self._in_order(self._journal.of(key)))
        return build_tables([*rows], {name: self.keys[name] for name in names}, self._parts.read(keys))

    def _in_order(self, rows: Mapping[str, Kept]) -> list[Kept]:
        """Rows in the order of the study's prompts, whichever was done first."""
        return [rows[name] for name in sorted(rows, key=lambda name: self._place.get(name, len(self._place)))]

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
        there = self._journal.of((name, weights, repeat))
        return frozenset(
            prompt
            for prompt in self._prompts
            if (kept := there.get(prompt)) is None or (with_steps and not kept.with_steps)
        )


def _together(counts: Mapping[str, int], at_once: int) -> Iterator[list[str]]:
    """Combinations, in order, whose rows are about so many; at least one list, which may be empty."""
    names, rows = list[str](), 0
    for name, count in counts.items():
        if names and rows + count > at_once:
            yield names
            names, rows = [], 0
        names.append(name)
        rows += count
    yield names
