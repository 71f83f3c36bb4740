"""Live rows of texts that were decoded side by side: those of each text alone, and their times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import isclose
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pytest
from support.command_line import Run
from support.engine_runs import rows_of, study_of, untimed_rows, work_of
from support.tiny_models import PairFolders

from specdraft.decoding.batch import Batch
from specdraft.drafters.pair import Pair, load_pair
from specdraft.results.journal import Row
from specdraft.study.combination import Combination
from specdraft.study.engines import live
from specdraft.study.engines.base import Done, Event, Failed, GivenUp, Work
from specdraft.study.engines.live import LiveEngine
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.run import run_study
from specdraft.traces.store import TraceStore

T = TypeVar("T")
TEXTS = ("Once upon a time", "It was late", "def f(x):", "1 2 3 1 2 3 1", "A")
LIVE = ["engine=live", "batch=1,3", "report=false"]
RANKED = ["tree=kary,best_first", "budget=3", "acceptance=greedy,topk", "sampling.temperature=0,1.0"]
DRAWN = ["tree=kary", "budget=3", "acceptance=recursive,traversal", "sampling.temperature=1.0", "repeats=2"]


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*study_of(tiny_pair_folders, tmp_path_factory.mktemp("prompts"), TEXTS), "max_new_tokens=8", *LIVE]


@pytest.fixture(scope="module")
def plan(base: list[str]) -> StudyPlan:
    return plan_study([*base, "tree=kary", "budget=3"])


@pytest.fixture(scope="module")
def pair(plan: StudyPlan) -> Pair:
    return load_pair(plan.combinations[0].pair)


def events_of(work: Work, pair: Pair, traces: Path) -> list[Event]:
    return [*LiveEngine(TraceStore(traces)).run(work, pair)]


def by_batch(events: Sequence[Event], work: Work) -> dict[int, list[dict[str, Any]]]:
    """What each batch size comes to: rows by what they are of, whatever their combination is called."""
    named = {combination.identifier: combination for combination in work.combinations}
    found = defaultdict[int, list[dict[str, Any]]](list)
    for row in untimed_rows(events):
        combination = named[row.pop("row")]
        found[combination.settings.batch].append(row | {"of": what(combination)})
    return {batch: sorted(rows, key=repr) for batch, rows in found.items()}


def what(combination: Combination) -> str:
    return repr({name: v for name, v in combination.keys.items() if name not in ("combination", "batch")})


@pytest.mark.parametrize("asked", [RANKED, DRAWN], ids=["ranked", "drawn"])
def test_counts_do_not_depend_on_the_batch(base: list[str], pair: Pair, tmp_path: Path, asked: list[str]) -> None:
    work = work_of(plan_study([*base, *asked]), "live")
    found = by_batch(events_of(work, pair, tmp_path), work)
    assert len(found[1]) == len(work.combinations) // 2 * len(TEXTS) * work.repeats
    assert found[1] == found[3]


def test_a_text_reads_the_same_earlier_ones_in_every_batch(base: list[str], pair: Pair, tmp_path: Path) -> None:
    given = plan_study([*base, "drafter=suffix", "drafter.earlier=true", "tree=kary", "budget=4"])
    work = work_of(given, "live")
    drafting = load_pair(given.combinations[0].pair, target_of=pair)
    found = by_batch(events_of(work, drafting, tmp_path), work)
    assert sum(row["tally"]["accepted_tokens"] for row in found[1]) > 0
    assert found[1] == found[3]


def test_names_of_single_texts_are_as_they_were(base: list[str]) -> None:
    plain, other = plan_study([*base, "tree=kary", "budget=3"]).combinations
    unsaid = plan_study([*base[:-2], "engine=live", "report=false", "tree=kary", "budget=3", "batch=1"]).combinations
    assert [plain.identifier] == [combination.identifier for combination in unsaid]
    assert other.identifier != plain.identifier
    assert plain.digest({}) == plain.digest({"batch": 1}) != plain.digest({"batch": 2})


def test_times_are_shares_and_latency_is_all_of_it(plan: StudyPlan, pair: Pair, tmp_path: Path) -> None:
    work = work_of(plan, "live")
    batches = {combination.identifier: combination.settings.batch for combination in work.combinations}
    for row in rows_of(events_of(work, pair, tmp_path)):
        counted = row.tally
        parts = (counted.prefill_s, counted.draft_s, counted.predict_s, counted.verify_s, counted.other_s)
        assert isclose(sum(parts), counted.wall_s) and min(*parts[:2], *parts[3:]) > 0
        together = batches[row.combination]
        assert counted.latency_s >= counted.wall_s >= 0.99 * counted.latency_s / together
        assert together == 1 or counted.latency_s > 1.2 * counted.wall_s


def test_plain_decoding_goes_in_batches_of_the_same_size(
    plan: StudyPlan, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[tuple[bool, int]]()

    class Counting(Batch[T]):
        def __init__(self, target: Any, drafter: Any, seats: int) -> None:
            made.append((drafter is None, seats))
            super().__init__(target, drafter, seats)

    monkeypatch.setattr(live, "Batch", Counting)
    engine, work = LiveEngine(TraceStore(tmp_path)), work_of(plan, "live")
    rows = rows_of(engine.run(work, pair))
    assert made == [(True, 3), (False, 3)]
    together = {c.identifier for c in work.combinations if c.settings.batch == 3}
    of_alone, of_three = (
        [row.tally.plain_s for row in rows if (row.combination in together) == several] for several in (False, True)
    )
    assert not set(of_alone) & set(of_three)  # timed apart
    assert len(engine.plain) == 2 * len(TEXTS)
    rows_of(engine.run(work, pair))
    assert len(made) == 3  # plain texts are there


def test_a_stopped_study_makes_what_is_missing(
    plan: StudyPlan, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_of(plan, "live")
    engine = LiveEngine(TraceStore(tmp_path))
    running, first = engine.run(work, pair), list[Row]()
    while len(first) < len(TEXTS) + 2:  # all of the first batch size, some of the second
        event = next(running)
        first += event.rows if isinstance(event, Done) else []
    running.close()
    there = {(row.combination, row.repeat, row.prompt_id) for row in first}
    due = {
        (name, repeat): frozenset(prompt for prompt in prompts if (name, repeat, prompt) not in there)
        for (name, repeat), prompts in work.due.items()
    }
    later = rows_of(engine.run(replace(work, due=due), pair))
    assert len(first) + len(later) == 2 * len(TEXTS)
    both = by_batch([Done([*first, *later])], work)
    assert both == by_batch(events_of(work, pair, tmp_path), work)


def test_a_text_that_fails_leaves_those_beside_it(
    plan: StudyPlan, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_of(plan, "live")
    expected = by_batch(events_of(work, pair, tmp_path), work)
    decode = live.decode

    def failing(*given: Any, **more: Any) -> Any:
        if given[5] == pair.encode(TEXTS[1]):
            raise ValueError("not this one")
        return decode(*given, **more)

    monkeypatch.setattr(live, "decode", failing)
    three = [combination for combination in work.combinations if combination.settings.batch == 3]
    events = events_of(replace(work, combinations=tuple(three)), pair, tmp_path)
    assert [(e.prompt_id, e.error) for e in events if isinstance(e, Failed)] == [("1", "ValueError: not this one")]
    done = by_batch(events, work)[3]
    assert {row["prompt_id"] for row in done} == {"0", "2"}  # those that were begun
    assert all(row in expected[3] for row in done)
    assert sum(e.rows for e in events if isinstance(e, GivenUp)) == 2


def test_so_does_one_whose_plain_decoding_fails(
    plan: StudyPlan, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainly = live.plain_tokens

    def failing(*given: Any) -> Any:
        if given[2] == pair.encode(TEXTS[4]):
            raise ValueError("not this one")
        return plainly(*given)

    monkeypatch.setattr(live, "plain_tokens", failing)
    work = work_of(plan, "live")
    three = [combination for combination in work.combinations if combination.settings.batch == 3]
    events = events_of(replace(work, combinations=tuple(three)), pair, tmp_path)
    assert [(e.prompt_id, e.error) for e in events if isinstance(e, Failed)] == [("4", "ValueError: not this one")]
    assert {row.prompt_id for row in rows_of(events)} == {"0", "1", "2", "3"}


def test_a_batch_that_cannot_be_made_fails_once(
    plan: StudyPlan, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*given: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(live, "Batch", refusing)
    work = work_of(plan, "live")
    three = [combination for combination in work.combinations if combination.settings.batch == 3]
    events = events_of(replace(work, combinations=tuple(three)), pair, tmp_path)
    assert [type(event) for event in events] == [Failed, GivenUp]
    assert sum(event.rows for event in events if isinstance(event, Failed | GivenUp)) == len(TEXTS)


def test_tables_have_the_batch_and_its_latencies(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    outcome = run_study(plan_study([*base, "tree=kary", "budget=3"]), tmp_path / "out")
    summary = outcome.tables["summary.csv"]
    records = outcome.tables_of([*summary["combination"]])["records.csv"]
    assert summary["batch"].tolist() == [1, 3]
    for _, row in summary.iterrows():
        waited = records.loc[records["batch"] == row["batch"], "latency_s"]
        assert row["latency_s_p50"] == pytest.approx(waited.quantile(0.5))
        assert row["latency_s_p95"] == pytest.approx(waited.quantile(0.95))
    assert (summary["speedup"] > 0).all()
    again = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert again["latency_s_p95"].tolist() == pytest.approx(summary["latency_s_p95"].tolist(), rel=1e-4)


def test_what_is_replayed_has_no_batch(run: Run, base: list[str]) -> None:
    others = [text for text in base if text not in LIVE]
    refused = run("sweep", *others, "tree=kary", "budget=3", "batch=2", "--dry-run")
    assert refused.code == 2
    assert "batch=2 is for engine=live" in refused.err and "Traceback" not in refused.err
    some = run("sweep", *others, "tree=kary", "budget=3", "batch=1,2", "--dry-run")
    assert some.code == 0 and some.out.count("skipped: ") == 1
    nothing = run("sweep", *others, "engine=live", "tree=kary", "budget=3", "batch=0", "--dry-run")
    assert (nothing.code, nothing.err.splitlines()[-1]) == (2, "error: batch=0 is out of range; expected 1 or more")
