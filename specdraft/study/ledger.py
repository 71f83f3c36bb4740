"""What a sweep writes down while it runs, and the files of a study that are made of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from specdraft.results.files import RECORDS
from specdraft.results.kept_tables import OFFSETS, RELIABILITY, KeptTable
from specdraft.study.combination import Combination
from specdraft.study.engines.base import Done, Event, Failed, GivenUp, LeftOut, Measured, Replayed
from specdraft.study.failures import Failure, Failures, write_failures
from specdraft.study.folder import read_manifest, write_manifest
from specdraft.study.manifest import Facts, build_manifest
from specdraft.study.plan import StudyPlan
from specdraft.study.progress import Progress
from specdraft.study.prompt_notes import notes_on_time
from specdraft.study.rows import Current, StudyRows
from specdraft.study.table_files import write_tables


class Written(NamedTuple):
    """A study's files as they were written.

    Attributes:
        tables: file name -> table, of those that do not grow with the prompts.
        manifest: see `build_manifest`.
        tables_of: all tables, of some combinations.
    """

    tables: dict[str, pd.DataFrame]
    manifest: dict[str, Any]
    tables_of: Callable[[Collection[str]], dict[str, pd.DataFrame]]


class Ledger:
    """Rows, failures and facts of a study, those of the runs that it resumes too.

    Args:
        plan: the study.
        out: its folder, which is locked and holds this study or none.
        progress: told of every row and every failure.

    Raises:
        ResultsError: the folder cannot be written.
    """

    def __init__(self, plan: StudyPlan, out: Path, progress: Progress) -> None:
        self._plan, self._out, self._progress = plan, out, progress
        self._by_name = {combination.identifier: combination for combination in plan.combinations}
        self._started = time.perf_counter()
        self.rows, self.failures = StudyRows(plan, out), Failures(out)
        self.facts = Facts.of(read_manifest(out))
        self._reliability, self._offsets = KeptTable(RELIABILITY, out), KeptTable(OFFSETS, out)
        for line in self.rows.damaged:
            progress.note(f"{line}: its rows are made again")

    def due(self, combinations: Iterable[Combination]) -> list[Combination]:
        """Those with rows still to do that have not failed in this run."""
        return [c for c in combinations if self.rows.missing(c) and c.identifier not in self.failures]

    def take(self, event: Event) -> None:
        """Write down what an engine says."""
        match event:
            case Done(rows):
                self.rows.add(rows)
                self._progress.advance(len(rows))
            case Replayed():
                self.rows.add_replayed(event)
                self._progress.advance(event.prompts)
            case Failed():
                self._fail(event)
            case LeftOut():
                self._leave_out(event)
            case GivenUp(rows):
                self._progress.given_up(rows)
            case Measured(pair, costs, near_ties, calibrations, reliability, predictors, offsets):
                if costs is not None:
                    self.facts.costs[costs.point.of(pair)] = costs
                if near_ties is not None:
                    self.facts.near_ties[pair] = near_ties
                    self._say_differing(pair, near_ties)
                for texts, fitted in calibrations:
                    self.facts.calibrations.setdefault(pair, {})[texts] = fitted.as_dict()
                if reliability is not None:
                    self._reliability.add(reliability)
                if offsets is not None:
                    self._offsets.add(offsets)
                if predictors:
                    self.facts.predictors.setdefault(pair, {}).update(predictors)

    def fail_all(self, combinations: Iterable[Combination], error: str) -> None:
        """Write down that these combinations cannot run; the error, which they share, is said once."""
        together = list(combinations)
        if len(together) > 1:
            pairs = ", ".join(dict.fromkeys(combination.pair.label for combination in together))
            self._progress.failed(f"all {len(together)} combinations of {pairs}", error)
        for combination in together:
            failed = Failed(combination.identifier, None, error, self.rows.missing(combination))
            self._fail(failed, said=len(together) > 1)

    def _fail(self, failed: Failed, said: bool = False) -> None:
        combination = self._by_name[failed.combination]
        again = shlex.join(combination.overrides)
        self.failures.add(Failure(failed.combination, failed.prompt_id, failed.error, again))
        if not said:
            self._progress.failed(combination.describe(), failed.error)
        self._progress.given_up(failed.rows)

    def _say_differing(self, pair: str, recorded: Mapping[str, Any]) -> None:
        """A target that does not say the same again."""
        twice = recorded.get("asked_twice") or {}
        if differing := twice.get("differing"):
            asked = f"{len(differing)} of {twice['prompts']} prompts asked twice"
            self._progress.note(f"{pair}: greedy texts differ from one request to the next ({asked}): {differing}")

    def _leave_out(self, event: LeftOut) -> None:
        """Prompts whose rows are not made; a reason that several share is said once."""
        self.facts.left_out.setdefault(event.pair, {}).update(event.why)
        alike: dict[str, list[str]] = {}
        for name, why in event.why.items():
            alike.setdefault(why, []).append(name)
        for why, names in alike.items():
            self._progress.failed(f"{event.pair}: left out: {', '.join(names)}", why)
        self._progress.given_up(event.rows)

    def write(self) -> Written:
        """Write every file: the union of this run and earlier ones. Raises `ResultsError`."""
        self.rows.close()
        failures, current = self._standing()
        for note in notes_on_time(current.timed_out):
            self._progress.note(note.text)
        self._progress.stage("tables", sum(current.counts.values()), "rows")
        pieces = self._noted(self.rows.tables(current))
        tables = write_tables(self._out, pieces, self._plan.shared_config, self._plan.settings.output.records)
        self._reliability.write()
        self._offsets.write()
        write_failures(self._out, failures, self._plan.private_paths)
        return Written(tables, self._write_manifest(failures, current), partial(self.rows.tables_of, current))

    def _noted(self, pieces: Iterable[dict[str, pd.DataFrame]]) -> Iterator[dict[str, pd.DataFrame]]:
        """Pieces of tables, whose rows count as done once they are written."""
        for tables in pieces:
            yield tables
            self._progress.done(len(tables.get(RECORDS, ())))

    def write_manifest(self) -> None:
        """Write what is known by now. Raises `ResultsError`."""
        self._write_manifest(*self._standing())

    def _write_manifest(self, failures: list[Failure], current: Current) -> dict[str, Any]:
        stages_s = self.facts.stages_s(self._progress.spent_s())
        manifest = build_manifest(self._plan, self.facts, current, self.rows.keys, failures, self.wall_s, stages_s)
        write_manifest(self._out, manifest)
        return manifest

    @property
    def wall_s(self) -> float:
        """Seconds of all runs so far."""
        return self.facts.earlier_s + time.perf_counter() - self._started

    def _standing(self) -> tuple[list[Failure], Current]:
        """The failures, and the rows, that stand."""
        done = {c.identifier for c in self._plan.combinations if not self.rows.missing(c)}
        failures = self.failures.standing(done=done)
        return failures, self.rows.current({failure.combination for failure in failures})
