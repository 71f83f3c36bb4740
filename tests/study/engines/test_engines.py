"""Engines as values: work in, events out."""

from __future__ import annotations

import json
import os
import pickle
from collections import defaultdict
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pytest
from support.engine_runs import engine_called, rows_of, run_elsewhere, study_of, untimed_rows, work_of
from support.tiny_models import PairFolders
from support.written import rows_in

from specdraft.bench.curve import CostCurve
from specdraft.drafters.pair import Pair, load_pair
from specdraft.results.journal import Journal
from specdraft.results.metrics import UNKNOWN
from specdraft.study.engines import live, replay
from specdraft.study.engines.base import Done, Due, Failed, GivenUp, Measured, Work
from specdraft.study.engines.live import LiveEngine, PlainTexts
from specdraft.study.engines.replay import ReplayEngine
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.run import run_study
from specdraft.traces.store import TraceStore

pytestmark = pytest.mark.usefixtures("few_rounds")

TEXTS = ("Once upon a time", "It was late", "def f(x):")
MIXED = ["tree=kary,wide,best_first", "budget=2", "acceptance=topk,recursive,typical"]
SAMPLED = ["sampling=sample", "sampling.temperature=0,1.0", "repeats=2"]
ENGINES = ("live", "replay")
CURVE = CostCurve([1, 2, 4], [1e-3, 1e-3, 2e-3], [5e-3, 6e-3, 7e-3], 5e-3, 1e-3, 5e-4, 2e-2, 1e-2, 1, "made up")


def rows_due(due: Due) -> int:
    return sum(map(len, due.values()))


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*study_of(tiny_pair_folders, tmp_path_factory.mktemp("prompts"), TEXTS), "max_new_tokens=5"]


@pytest.fixture(scope="module")
def plan(base: list[str]) -> StudyPlan:
    return plan_study([*base, *MIXED, *SAMPLED])


@pytest.fixture(scope="module")
def works(plan: StudyPlan) -> dict[str, Work]:
    return {engine: work_of(plan, engine) for engine in ENGINES}


@pytest.fixture(scope="module")
def pair(plan: StudyPlan) -> Pair:
    return load_pair(plan.combinations[0].pair)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def alone(works: dict[str, Work], pair: Pair, traces: Path) -> dict[str, list[dict[str, Any]]]:
    """What each engine makes of its work when nothing else runs."""
    rows = {engine: untimed_rows(engine_called(engine, traces).run(works[engine], pair)) for engine in ENGINES}
    assert all(len(rows[engine]) == rows_due(works[engine].due) > 0 for engine in ENGINES)
    return rows


class TestWork:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_it_is_sent_without_what_is_read_again(self, works: dict[str, Work], engine: str) -> None:
        work = works[engine]
        assert work.pair.target.tokenizer and work.pair.draft.config
        sent = pickle.dumps(work)
        again: Work = pickle.loads(sent)
        for files in (again.pair.target, again.pair.draft):
            assert not {"tokenizer", "config"} & vars(files).keys()
        assert b"transformers" not in sent
        assert {id(combination.pair) for combination in again.combinations} == {id(again.pair)}
        assert (again.due, again.prompts) == (work.due, work.prompts)
        for sent_one, kept in zip(again.combinations, work.combinations, strict=True):
            assert (sent_one.keys, sent_one.weights, sent_one.run_key) == (kept.keys, kept.weights, kept.run_key)
        assert again.pair.encode("late") == work.pair.encode("late")

    def test_another_process_makes_the_same_rows(
        self, works: dict[str, Work], alone: dict[str, list[dict[str, Any]]], tmp_path: Path
    ) -> None:
        events = run_elsewhere(works, tmp_path)
        assert {engine: untimed_rows(made) for engine, made in events.items()} == alone


class TestRuns:
    def test_rows_are_those_of_the_study(
        self, plan: StudyPlan, alone: dict[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
        monkeypatch.setattr("specdraft.study.engines.replay.pair_costs", lambda *given: CURVE)
        run_study(plan, tmp_path / "out")
        assert untimed_rows([Done(rows_in(tmp_path / "out"))]) == [*alone["replay"], *alone["live"]]

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.usefixtures("alone")  # after a run every cached property is there
    def test_nothing_is_written_or_changed(
        self, works: dict[str, Work], pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
    ) -> None:
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        before = pickle.dumps(works[engine])
        opened: list[str] = []
        monkeypatch.setattr(Journal, "__init__", lambda *given: opened.append("journal"))
        assert rows_of(engine_called(engine, tmp_path / "traces").run(works[engine], pair))
        assert (os.listdir(), opened) == ([], [])
        assert {path.name for path in tmp_path.iterdir()} <= {"empty", "traces"}
        assert pickle.dumps(works[engine]) == before

    @pytest.mark.parametrize(("first", "second"), [("live", "live"), ("live", "replay"), ("replay", "replay")])
    def test_two_runs_at_once(
        self,
        works: dict[str, Work],
        pair: Pair,
        traces: Path,
        alone: dict[str, list[dict[str, Any]]],
        first: str,
        second: str,
    ) -> None:
        """In turn, an event each, with one pair; the second run takes the combinations the other way round."""
        backwards = replace(works[second], combinations=works[second].combinations[::-1])
        runs = [
            engine_called(name, traces).run(work, pair) for name, work in ((first, works[first]), (second, backwards))
        ]
        events = list(zip_longest(*runs))
        assert untimed_rows(event for event, _ in events if event) == alone[first]
        other = untimed_rows(event for _, event in events if event)
        assert sorted(map(json.dumps, other)) == sorted(map(json.dumps, alone[second]))

    @pytest.mark.parametrize("engine", ENGINES)
    def test_only_what_is_due(
        self, works: dict[str, Work], pair: Pair, traces: Path, alone: dict[str, list[dict[str, Any]]], engine: str
    ) -> None:
        whole = sorted((*which, prompt) for which, prompts in works[engine].due.items() for prompt in sorted(prompts))
        wanted, due = whole[::3], defaultdict[tuple[str, int], frozenset[str]](frozenset)
        for name, repeat, prompt in wanted:
            due[name, repeat] |= {prompt}
        rows = untimed_rows(engine_called(engine, traces).run(replace(works[engine], due=dict(due)), pair))
        assert sorted((row["row"], row["repeat"], row["prompt_id"]) for row in rows) == wanted

        def in_order(some: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return sorted(some, key=lambda row: (row["row"], row["repeat"], row["prompt_id"]))

        left = [row for row in alone[engine] if (row["row"], row["repeat"], row["prompt_id"]) in wanted]
        assert in_order(rows) == in_order(left)

    @pytest.mark.parametrize("engine", ENGINES)
    def test_nothing_is_due(self, works: dict[str, Work], pair: Pair, traces: Path, engine: str) -> None:
        assert list(engine_called(engine, traces).run(replace(works[engine], due={}), pair)) == []


class TestPlainTexts:
    def test_engines_that_share_them_decode_plainly_once(
        self,
        works: dict[str, Work],
        pair: Pair,
        alone: dict[str, list[dict[str, Any]]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plain: PlainTexts = {}
        first = list(LiveEngine(TraceStore(traces), plain=plain).run(works["live"], pair))
        assert len(plain) == 2 * 2 * len(TEXTS)  # greedy and sampled, two repeats
        monkeypatch.setattr(live, "plain_tokens", lambda *given: pytest.fail("decoded again"))
        again = list(LiveEngine(TraceStore(traces), plain=plain).run(works["live"], pair))
        assert untimed_rows(first) == untimed_rows(again) == alone["live"]
        assert [row.tally.plain_s for row in rows_of(first)] == [row.tally.plain_s for row in rows_of(again)]

    def test_another_seed_is_another_plain_text(self, works: dict[str, Work], pair: Pair) -> None:
        plain: PlainTexts = {}
        list(LiveEngine(TraceStore(traces), plain=plain).run(works["live"], pair))
        known = len(plain)
        list(LiveEngine(TraceStore(traces), plain=plain).run(replace(works["live"], seed=1), pair))
        assert len(plain) == 2 * known


class TestEvents:
    def test_what_is_measured(self, works: dict[str, Work], pair: Pair, traces: Path) -> None:
        notes: list[str] = []
        events = list(ReplayEngine(TraceStore(traces / "new"), notes.append).run(works["replay"], pair))
        everything = [event for event in events if isinstance(event, Measured)]
        measured = [event for event in everything if event.reliability is None and event.offsets is None]
        assert any(event.reliability is not None for event in everything)  # of the best-first trees
        (curve,) = (event.offsets for event in everything if event.offsets is not None)  # of the greedy texts
        assert curve["places"].is_monotonic_decreasing and (curve["accepted"] == curve["fresh"]).all()
        assert [event.near_ties is not None for event in measured] == [True, False, False]  # greedy, two sampled texts
        assert {event.pair for event in measured} == {"tiny"}
        assert len({repr(event.costs) for event in measured}) == 1
        assert any(note.startswith("recorded 3 trajectories") for note in notes)

    def test_every_due_row_is_in_an_event(
        self, base: list[str], pair: Pair, traces: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Twins fail together on the second prompt; their rows of the third one are given up."""
        work = work_of(plan_study([*base, "tree=kary,wide,chain", "budget=2", "engine=live"]), "live")
        decode, calls = live.decode, []

        def failing(verifier: Any, drafter: Any, plan: Any, *given: Any, **how: Any) -> Any:
            calls.append(plan)
            if plan.depth == 1 and sum(p.depth == 1 for p in calls) == 2:
                raise RuntimeError("boom\nat length")
            return decode(verifier, drafter, plan, *given, **how)

        monkeypatch.setattr(live, "decode", failing)
        events = list(engine_called("live", traces).run(work, pair))
        failed = [event for event in events if isinstance(event, Failed)]
        twins = [c.identifier for c in work.combinations if c.plan.depth == 1]
        assert failed == [Failed(name, "1", "RuntimeError: boom", 1) for name in twins]
        assert [event for event in events if isinstance(event, GivenUp)] == [GivenUp(len(twins))]
        passed = sum(event.rows for event in events if isinstance(event, Failed | GivenUp))
        assert len(rows_of(events)) + passed == rows_due(work.due)
        assert {row.prompt_id for row in rows_of(events) if row.combination in twins} == {"0"}

    def test_a_group_that_cannot_be_prepared(
        self, works: dict[str, Work], pair: Pair, traces: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every one of its combinations fails; what stands on other texts is replayed."""
        near_ties = replay.near_ties

        def broken(*given: Any) -> Any:
            near_ties(*given)
            raise ValueError("no gaps")

        monkeypatch.setattr(replay, "near_ties", broken)
        work = works["replay"]
        events = list(engine_called("replay", traces).run(work, pair))
        greedy = {c.identifier for c in work.combinations if c.sampling.greedy}
        failed = [event for event in events if isinstance(event, Failed)]
        assert {event.combination for event in failed} == greedy
        assert {(event.error, event.rows) for event in failed} == {("ValueError: no gaps", 2 * len(TEXTS))}
        assert {row.combination for row in rows_of(events)} == {c.identifier for c in work.combinations} - greedy

    def test_they_are_plain_values(self, works: dict[str, Work], pair: Pair, traces: Path) -> None:
        runs = [list(engine_called(engine, traces).run(works[engine], pair)) for engine in ENGINES]
        events = list(chain(*runs, [Failed("a", None, "b", 1), GivenUp(2)]))
        again = pickle.loads(pickle.dumps(events))
        assert untimed_rows(again) == untimed_rows(events)
        assert list(map(type, again)) == list(map(type, events))
        assert all(getattr(row.tally, name) is not None for row in rows_of(again) for name in UNKNOWN)


def test_a_plain_text_is_not_that_of_another_length(base: list[str], pair: Pair, tmp_path: Path) -> None:
    plan = plan_study([*base, "tree=chain", "budget=2", "engine=live", "max_new_tokens=3,8"])
    plain: PlainTexts = {}
    events = list(LiveEngine(TraceStore(tmp_path / "traces"), plain=plain).run(work_of(plan, "live"), pair))
    assert all(isinstance(event, Done) for event in events)
    assert sorted(len(text.tokens) for text in plain.values()) == [3] * len(TEXTS) + [8] * len(TEXTS)
