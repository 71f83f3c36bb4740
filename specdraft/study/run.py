"""Run a study: every combination on every prompt, resumable, into tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from specdraft.bench.curve import CostCurve
from specdraft.drafters.on_demand import Memory, PairOnDemand
from specdraft.drafters.pair import PairFiles
from specdraft.errors import LoadError
from specdraft.results.locks import locked
from specdraft.study.combination import Combination
from specdraft.study.executors import ENGINES, Executor, executor_of
from specdraft.study.failures import Failure, explain
from specdraft.study.folder import open_study
from specdraft.study.forecast import forecast
from specdraft.study.ledger import Ledger
from specdraft.study.plan import StudyPlan
from specdraft.study.progress import Progress
from specdraft.study.proofs import check_pair, prove_rules, sampled_rules
from specdraft.study.run_note import NotedProgress
from specdraft.traces.memory import StoredMemory
from specdraft.traces.store import TraceStore, default_folder


@dataclass
class Outcome:
    """What a sweep did, and what is known of the study now.

    Attributes:
        rows: how many this run added; `reused`: how many were there before.
        wall_s: seconds, with those of the runs that it resumed.
        failures: of this run.
        tables: file name -> table, of those that do not grow with the prompts.
        tables_of: all tables but the comparisons, of some combinations; they are read while the folder is there.
        certified: False: live text that `certify=true` looked at is not the target's.
        untested: lossless rules of which that text could have shown nothing.
        costs: pair -> what drafting and verifying cost with it.
        models: pair -> both its models, as the manifest says it.
        left_out: prompts that have no text, over all pairs.
        certificate: how losslessness is known, as the manifest says it.
    """

    out: Path
    rows: int
    reused: int
    wall_s: float
    failures: list[Failure]
    tables: dict[str, pd.DataFrame] = field(repr=False)
    tables_of: Callable[[Collection[str]], dict[str, pd.DataFrame]] = field(repr=False)
    certified: bool
    untested: list[str]
    costs: dict[str, CostCurve] = field(repr=False)
    models: dict[str, Any] = field(repr=False)
    certificate: dict[str, Any] = field(repr=False)
    left_out: int = 0


def run_study(plan: StudyPlan, out: Path, fresh: bool = False, progress: Progress | None = None) -> Outcome:
    """Run what is missing, write the tables.

    An interruption (Ctrl-C) still writes the tables of what is done.

    Raises:
        ResultsError: the directory cannot be used or written.
    """
    with threads(plan.settings.threads), locked(out):
        open_study(plan, out, fresh)
        with NotedProgress(progress or Progress(), out, plan.private_paths) as noted:
            return _run(plan, out, noted)


def _run(plan: StudyPlan, out: Path, progress: Progress) -> Outcome:
    store = TraceStore(default_folder())
    if any(combination.engine == "replay" for combination in plan.combinations):
        store.check_writable()
    ledger = Ledger(plan, out, progress)
    try:
        with executor_of(plan, store, progress) as executor:
            _Sweep(plan, ledger, executor, progress, StoredMemory(store)).run()
    finally:
        progress.pair("")
        written = ledger.write()
    facts = ledger.facts
    return Outcome(
        out,
        ledger.rows.done,
        ledger.rows.reused,
        ledger.wall_s,
        ledger.failures.now,
        written.tables,
        written.tables_of,
        certified=facts.certified,
        untested=facts.untested if plan.settings.certify else [],
        costs=facts.costs,
        models=facts.models,
        certificate=written.manifest["certificate"],
        left_out=len({name for why in facts.left_out.values() for name in why}),
    )


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads of the processor for forwards; None leaves what `torch` chooses: one for each physical core."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Sweep:
    """One way through a plan: a pair is loaded once, and all that is due of it runs before the next one."""

    plan: StudyPlan
    ledger: Ledger
    executor: Executor
    progress: Progress
    memory: Memory

    def run(self) -> None:
        pairs, rows = self.plan.by_pair(), self.ledger.rows
        self.progress.start(rows.total, rows.reused)
        rows.add_combinations(combination for combinations in pairs.values() for combination in combinations)
        self.progress.plan(forecast(self.plan, {p: self.ledger.due(c) for p, c in pairs.items()}, rows.missing))
        self._prove_rules()
        loaded: PairOnDemand | None = None
        for files, combinations in pairs.items():
            due = self.ledger.due(combinations)
            if not due and not self._to_check(files):
                continue
            self.progress.pair(files.label)
            if loaded is not None and loaded.files.target is not files.target:
                loaded = None  # its memory is needed
            loaded = self._load(files, loaded, due)
            if loaded is not None:
                self._run_pair(loaded, combinations, due)

    def _to_check(self, files: PairFiles) -> bool:
        return self.plan.settings.certify and files.label not in self.ledger.facts.live

    def _prove_rules(self) -> None:
        """A rule that is not as it claims is not run."""
        rules, missing = self.ledger.facts.rules, self.ledger.rows.missing
        if sampled := sampled_rules(self.plan.combinations):
            self.progress.stage("prove", len(sampled), "rules")
        for proof, combinations in prove_rules(self.plan.combinations, rules, missing):
            rules[proof.rule] = proof.as_dict()
            self.progress.done(1)
            if proof.lossless and not proof.exact:
                self.ledger.fail_all(combinations, f"bug: acceptance={proof.rule} is {proof.verdict()}")

    def _load(self, files: PairFiles, loaded: PairOnDemand | None, due: list[Combination]) -> PairOnDemand | None:
        """The pair, described. Its weights are read where decoding needs them, or where they never were read before."""
        pair = PairOnDemand(files, self.memory, loaded, self._loading)
        try:
            if self._to_check(files):
                pair.load()
            self.executor.ready(pair, any(combination.engine == "live" for combination in due))
            self.ledger.facts.add_models(pair)
        except Exception as error:  # another pair may still load
            self.ledger.fail_all(due, explain(error))
            return None
        return pair

    @contextmanager
    def _loading(self) -> Iterator[None]:
        self.progress.stage("load", 1, "models")
        yield
        self.progress.done(1)

    def _run_pair(self, pair: PairOnDemand, combinations: list[Combination], due: list[Combination]) -> None:
        self.ledger.write_manifest()  # a killed sweep has said what it ran
        for name in ENGINES:
            if chosen := [combination for combination in due if combination.engine == name]:
                self._run_engine(name, pair, chosen)
        if self.plan.settings.certify:
            self.ledger.facts.live[pair.label] = check_pair(self.plan, pair, combinations, self.progress)

    def _run_engine(self, engine: str, pair: PairOnDemand, chosen: list[Combination]) -> None:
        try:
            for event in self.executor.run(engine, self.ledger.rows.work(pair.files, chosen), pair):
                self.ledger.take(event)
        except LoadError as error:  # known from earlier traces, and not to be loaded now
            self.ledger.fail_all(self.ledger.due(chosen), explain(error))
