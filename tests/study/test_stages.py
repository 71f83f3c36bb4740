"""What a sweep says of its stages, what its estimates are made of, and how many threads it has."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from support.command_line import Run
from support.engine_runs import work_of
from support.tiny_models import PairFolders

from specdraft.bench.curve import Circumstances, CostCurve
from specdraft.drafters.on_demand import PairOnDemand
from specdraft.errors import ConfigError
from specdraft.report.answer import answer
from specdraft.report.findings import findings_of
from specdraft.report.run_facts import run_facts
from specdraft.report.study_files import read_study
from specdraft.report.words import plain
from specdraft.study.engines import replay
from specdraft.study.executors.driver import STAGES
from specdraft.study.executors.units import DESCRIBE, Phase, Unit, phases
from specdraft.study.forecast import EXPANDED, forecast
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.progress import Progress
from specdraft.study.run import Outcome, run_study
from specdraft.study.timeline import Stage
from specdraft.traces.watch import Watch
from specdraft.viewer.tables import cost_lines

TEXTS = ("Once upon a time", "It was late", "def f(x):")
NEW = 10
CURVE = CostCurve([1, 2, 4, 8], [1e-3] * 4, [5e-3] * 4, 5e-3, 1e-3, 5e-4, 2e-2, 1e-2, 1, "made up")


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    pair = [f"pair.target.path={tiny_pair_folders.target}", f"pair.draft.path={tiny_pair_folders.draft}"]
    return [*pair, "pair.name=tiny", f"prompts.path={path}", f"max_new_tokens={NEW}", "report=false"]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return tmp_path / "traces"


class Asked(NamedTuple):
    """What costs were asked for."""

    largest: int
    limit_s: float
    again: bool


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Costs are made up."""
    calls: list[Asked] = []

    def pair_costs(
        pair: Any, store: Any, largest: int, limit_s: float, again: bool, watch: Watch, at: Any
    ) -> CostCurve:
        calls.append(Asked(largest, limit_s, again))
        watch.stage("costs", 0, "timings")
        return CURVE

    monkeypatch.setattr("specdraft.study.engines.replay.pair_costs", pair_costs)
    return calls


class Heard(Progress):
    """The stages of a sweep, as (name, due, unit, done)."""

    def __init__(self) -> None:
        self.planned: list[Stage] = []
        self.stages: list[list[Any]] = []
        self.spent: dict[str, dict[str, float]] = {}

    def spent_s(self) -> dict[str, dict[str, float]]:
        return self.spent

    def plan(self, stages: Sequence[Stage]) -> None:
        self.planned += stages

    def stage(self, name: str, due: float, unit: str) -> None:
        self.stages.append([name, due, unit, 0])

    def done(self, amount: float) -> None:
        self.stages[-1][3] += amount

    def advance(self, rows: int) -> None:
        if self.stages:
            self.done(rows)


def run(base: list[str], out: Path, *overrides: str) -> tuple[Heard, Outcome]:
    heard = Heard()
    return heard, run_study(plan_study([*base, *overrides]), out, progress=heard)


class TestStages:
    @pytest.mark.usefixtures("asked")
    def test_each_is_said_with_what_is_to_do_and_done_to_the_end(self, base: list[str], tmp_path: Path) -> None:
        grid = ("tree=chain,best_first", "budget=2,3")
        heard, _ = run(base, tmp_path / "first", *grid)
        rows = 3 * (4 + 2)  # a hindsight tree beside each budget
        last = [["replay", rows, "rows", rows], ["tables", rows, "rows", rows]]
        load = ["load", 1, "models", 1]
        assert heard.stages == [
            load,
            load,
            ["record", 3 * NEW, "tokens", 3 * NEW],
            ["annotate", 3, "prompts", 3],
            ["expand", 3, "prompts", 3],
            ["costs", 0, "timings", 0],
            *last,
        ]
        again, _ = run(base, tmp_path / "second", *grid)  # from traces that are there
        assert again.stages == [*([name, 0, unit, 0] for name, _, unit, _ in heard.stages[2:6]), *last]

    @pytest.mark.usefixtures("asked")
    def test_what_each_took_stands_in_the_manifest_added_over_runs(self, base: list[str], tmp_path: Path) -> None:
        for budget, (spent, expected) in {
            2: ({"tiny": {"record": 1.25}, "": {"tables": 0.5}}, {"tiny": {"record": 1.25}, "": {"tables": 0.5}}),
            3: (
                {"tiny": {"replay": 2.0}, "": {"tables": 1.0}},
                {"tiny": {"record": 1.25, "replay": 2.0}, "": {"tables": 1.5}},
            ),
        }.items():
            heard = Heard()
            heard.spent = spent
            run_study(plan_study([*base, "tree=chain", f"budget={budget}"]), tmp_path / "out", progress=heard)
            assert json.loads((tmp_path / "out" / "manifest.json").read_text())["stages_s"] == expected

    @pytest.mark.usefixtures("asked")
    def test_sampled(self, base: list[str], tmp_path: Path) -> None:
        grid = ("tree=chain", "budget=2", "acceptance=rejection", "sampling.temperature=1", "repeats=2")
        heard, _ = run(base, tmp_path / "out", *grid)
        text = [["record", 3 * NEW, "tokens", 3 * NEW], ["annotate", 3, "prompts", 3], ["judge", 3, "prompts", 3]]
        of_one = [*text, ["costs", 0, "timings", 0], ["replay", 3, "rows", 3]]
        prove, load = ["prove", 1, "rules", 1], ["load", 1, "models", 1]
        assert heard.stages == [prove, load, load, *of_one, *text, of_one[-1], ["tables", 6, "rows", 6]]

    def test_live_with_fitted_trees(self, base: list[str], tmp_path: Path) -> None:
        heard, _ = run(base, tmp_path / "out", "tree=sequoia", "budget=2", "engine=live")
        names = ["load", "load", "decode", "record", "annotate", "tables"]
        assert [stage[0] for stage in heard.stages] == names
        assert [stage.name for stage in heard.planned] == names

    def test_costs_are_a_stage(self, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from specdraft.bench import measuring

        monkeypatch.setattr(measuring, "MOST", 1)
        heard, outcome = run(base, tmp_path / "out", "tree=chain", "budget=2")
        # of three sizes two kinds, one of them twice; two prefills, three of steps: warmed and timed once
        assert ["costs", 2 * 13, "timings", 2 * 13] in heard.stages
        assert outcome.costs["tiny"].sizes == [1, 2, 3]


class TestForecast:
    def planned(self, base: list[str], *overrides: str) -> list[Stage]:
        plan = plan_study([*base, *overrides])
        return forecast(plan, plan.by_pair(), lambda combination: len(plan.prompts))

    def test_the_stages_of_a_sweep(self, base: list[str]) -> None:
        stages = self.planned(base, "tree=chain,best_first", "budget=2,3", "report=true")
        assert [(stage.pair, stage.name, stage.due) for stage in stages] == [
            ("tiny", "load", 1),
            ("tiny", "load", 1),
            ("tiny", "record", 3 * NEW),
            ("tiny", "annotate", 3),
            ("tiny", "expand", 3),
            ("tiny", "costs", 1),
            ("tiny", "replay", 18),
            ("", "tables", 18),
            ("", "report", 1),
        ]
        assert all(stage.guess_s > 0 for stage in stages)
        assert [stage.name for stage in stages if stage.by_models] == [stage.name for stage in stages[:6]]

    @pytest.mark.parametrize("engine", ["replay", "live"])
    def test_workers_have_the_stages_that_the_driver_tells(
        self, base: list[str], engine: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 2)
        monkeypatch.setattr("psutil.getloadavg", lambda: (0.0, 0.0, 0.0))
        asked = [*base, "tree=chain,sequoia", "budget=2,3", f"engine={engine}"]
        both = [*asked, "executor=processes", "resources.workers=2"]
        alone, stages = self.planned(asked), self.planned(both)
        plan = plan_study(both)
        cut = phases(engine, work_of(plan, engine), 2)
        assert [(stage.pair, stage.name, stage.due) for stage in stages if stage.pair] == [
            ("tiny", *STAGES[phase.kind][:1], sum(unit.amount for unit in phase.units))
            for phase in [Phase(DESCRIBE, [Unit(DESCRIBE, "", cut[0].units[0].work)]), *cut]
        ]
        assert [stage.unit for stage in stages if stage.pair][1:] == [STAGES[phase.kind][1] for phase in cut]
        rows = [sum(stage.guess_s for stage in some if stage.pair and stage.unit == "rows") for some in (alone, stages)]
        assert rows[0] == pytest.approx(2 * rows[1])
        assert stages[0].guess_s > sum(stage.guess_s for stage in alone if stage.name == "load")

    def test_pairs_with_one_target_record_once(self, base: list[str]) -> None:
        stages = self.planned(base, "tree=chain", "budget=2", "drafter=model,ngram")
        assert [(stage.pair, stage.name) for stage in stages if stage.name in ("record", "annotate")] == [
            ("tiny", "record"),
            ("tiny", "annotate"),
            ("tiny with ngram", "annotate"),
        ]

    def test_what_is_not_wanted_is_not_planned(self, base: list[str]) -> None:
        stages = self.planned(base, "tree=chain", "budget=2", "cost.measure=off")
        assert [stage.name for stage in stages] == ["load", "load", "record", "annotate", "replay", "tables"]

    def test_each_sampled_text_has_its_stages(self, base: list[str]) -> None:
        grid = ("tree=chain", "budget=2", "acceptance=rejection", "sampling.temperature=0.5,1", "repeats=2")
        names = [stage.name for stage in self.planned(base, *grid)]
        assert [names.count(name) for name in ("prove", "record", "judge", "costs", "replay")] == [1, 4, 4, 1, 4]

    def test_more_tokens_take_longer(self, base: list[str]) -> None:
        def guess(*overrides: str) -> dict[str, float]:
            return {stage.name: stage.guess_s for stage in self.planned(base, "tree=best_first", *overrides)}

        few, many, deep = guess("budget=2"), guess("budget=2", "max_new_tokens=20"), guess("budget=4")
        assert many["record"] > 1.2 * few["record"]
        assert many["expand"] == pytest.approx(2 * few["expand"], rel=0.5)  # others use the processor too, now and then
        assert deep["expand"] == pytest.approx(2 * few["expand"], rel=0.5)

    def test_heads_that_drift_feed_their_nodes(self) -> None:
        """A head of one forward makes a whole tree; one that reads what it made is fed node by node."""
        words = ("tree=best_first", "tree.max_depth=4", "budget=16")
        for drafter, fed in (("parallel", 1), ("medusa", 1), ("eagle", 16 * EXPANDED)):
            planned = self.planned(["pair=zoo", "prompts.limit=4", f"drafter={drafter}"], *words)
            guess = {stage.name: stage.guess_s for stage in planned}
            # texts are annotated with the tokens before them
            assert guess["expand"] / guess["annotate"] == pytest.approx(fed, rel=0.8)

    def test_a_crowded_processor_takes_longer(self, base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        from specdraft.study import forecast as module

        plan = plan_study([*base, "tree=chain", "budget=2"])

        def guesses(load: float) -> list[float]:
            monkeypatch.setattr(module.psutil, "getloadavg", lambda: (load, 0.0, 0.0))
            monkeypatch.setattr(module.psutil, "cpu_count", lambda: 2)
            return [stage.guess_s for stage in forecast(plan, plan.by_pair(), lambda combination: 3)]

        assert guesses(0.5) == guesses(2.0) == pytest.approx([guess / 3 for guess in guesses(6.0)])


class TestCosts:
    def test_off(self, base: list[str], asked: list[Asked], tmp_path: Path) -> None:
        heard, outcome = run(base, tmp_path / "out", "tree=chain,best_first", "budget=2", "cost.measure=off")
        assert asked == []
        assert "costs" not in [stage[0] for stage in heard.stages]
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["costs"] == {}
        (note,) = (note for note in manifest["plan_notes"] if "cost.measure=off" in note)
        assert "est_ columns are empty" in note
        for table in ("records.csv", "summary.csv"):
            written = pd.read_csv(tmp_path / "out" / table)
            assert written[["est_tokens_per_s", "est_speedup"]].isna().all(axis=None)
            assert written["block_efficiency"].notna().all()
        assert outcome.failures == []
        study = read_study(tmp_path / "out")
        assert any(note in said for said in study.notes)  # the page says it
        assert not findings_of(study).estimated.size

    def test_auto_is_asked_for_what_trees_need(self, base: list[str], asked: list[Asked], tmp_path: Path) -> None:
        run(base, tmp_path / "out", "tree=chain,kary", "budget=2,6")
        assert asked == [Asked(7, 30.0, False)]  # the root too; recording took less than 300 s

    def test_a_tenth_of_a_long_recording(
        self, base: list[str], asked: list[Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = chain([1000.0], repeat(1900.0))
        monkeypatch.setattr(replay, "time", SimpleNamespace(perf_counter=lambda: next(times)))
        run(base, tmp_path / "out", "tree=chain", "budget=2")
        assert [call.limit_s for call in asked] == [90.0]

    def test_again_is_once_for_each_pair(self, base: list[str], asked: list[Asked], tmp_path: Path) -> None:
        run(base, tmp_path / "out", "tree=chain", "budget=2", "max_new_tokens=5,6,7", "cost.measure=again")
        assert [call.again for call in asked] == [True]  # three kinds of texts

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (["cost.measure=never"], "cost.measure='never' is not known"),
            (["cost.measure=off,auto"], "cost.measure cannot be swept"),
            (["cost.measure=off", "engine=live"], "cost.measure=off has no effect: nothing is replayed"),
            (["cost.seconds=3"], "cost.seconds is not a key"),
            (["measure=off"], "did you mean 'cost.measure'?"),
        ],
    )
    def test_bad_input(self, base: list[str], overrides: list[str], words: str) -> None:
        with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
            plan_study([*base, "tree=chain", "budget=2", *overrides])

    def test_off_in_a_file_is_no_boolean(self, base: list[str], tmp_path: Path) -> None:
        (tmp_path / "experiment").mkdir()
        (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ncost:\n  measure: off\n")
        plan = plan_study([*base, "experiment=mine", "tree=chain", "budget=2"], tmp_path)
        assert plan.settings.cost.measure == "off"

    def test_how_they_were_measured_stands_in_manifest_and_page(
        self, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quartiles = {"verify_s": [[4e-3, 6e-3], *[[5e-3, 5e-3]] * 3]}
        measured = Circumstances("2026-01-02T03:04:05+00:00", 1.25, 12.0, quartiles, 0.25, 2)
        curve = replace(CURVE, measured=measured)
        monkeypatch.setattr("specdraft.study.engines.replay.pair_costs", lambda *given: curve)
        run(base, tmp_path / "out", "tree=chain", "budget=2")
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert manifest["costs"]["tiny"]["measured"] == {
            "date": "2026-01-02T03:04:05+00:00",
            "load": 1.25,
            "seconds": 12.0,
            "quartiles": quartiles,
            "elsewhere": 0.25,
            "cores": 2,
            "unreliable": [],
        }
        (fact,) = (fact for fact in run_facts(read_study(tmp_path / "out")) if fact.label == "tiny, costs measured")
        how = "2026-01-02T03:04:05+00:00, 1 thread, load 1.2, other work used 0.2 of 2 cores, in 12 s"
        assert plain(fact.text) == f"{how}, quartiles of verification up to 40% of the median apart"

    def test_without_costs_that_can_be_trusted_there_are_no_estimates_until_they_are_measured_again(
        self, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def estimated(out: Path) -> pd.Series[Any]:
            return pd.read_csv(out / "summary.csv").set_index(["tree", "budget"])["est_speedup"].notna()

        why = ("other work used 1.4 of 2 cores while costs were measured",)
        measured = Circumstances("2026-01-02T03:04:05+00:00", 1.25, 12.0, {}, 1.4, 2, why)
        doubted = replace(CURVE, measured=measured)
        monkeypatch.setattr("specdraft.study.engines.replay.pair_costs", lambda *given: doubted)
        grid, out = ("tree=chain", "budget=2"), tmp_path / "out"
        run(base, out, *grid)
        assert not estimated(out).any()
        assert (pd.read_csv(out / "summary.csv")["block_efficiency"] >= 1).all()
        said = (
            "not reliable here for tiny, because other work used 1.4 of 2 cores while costs were measured, so nothing "
            "is estimated; on a quiet machine, the same command with cost.measure=again measures again (a cost.table: "
            "specdraft bench costs --out FILE)"
        )
        assert plain(answer(findings_of(read_study(out)))[-1]) == f"Time: {said}."
        assert cost_lines(run(base, out, *grid)[1].costs) == [f"time: {said}"]
        monkeypatch.setattr("specdraft.study.engines.replay.pair_costs", lambda *given: CURVE)
        assert run(base, out, *grid)[1].rows == 0
        outcome = run(base, out, *grid, "cost.measure=again")[1]
        assert outcome.rows == 6
        assert cost_lines(outcome.costs) == []
        assert estimated(out).all()
        assert run(base, out, *grid, "cost.measure=again")[1].rows == 0


class TestThreads:
    def test_as_many_as_are_asked_for(self, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are set before anything is loaded, and set back; nothing has to run with them here."""

        def load(*given: Any) -> None:
            seen.append(torch.get_num_threads())
            raise RuntimeError("not loaded")

        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        monkeypatch.setattr(PairOnDemand, "describe", load)
        before, seen = torch.get_num_threads(), list[int]()
        for name, chosen in {"three": ["threads=3"], "default": []}.items():
            run(base, tmp_path / name, "tree=chain", "budget=2", *chosen)
            manifest = json.loads((tmp_path / name / "manifest.json").read_text())
            assert manifest["threads"] == seen[-1] == (3 if chosen else before)
            assert torch.get_num_threads() == before
        assert len(seen) == 2

    @pytest.mark.parametrize("count", [0, -1, 5])
    def test_bad_input(self, base: list[str], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        with pytest.raises(ConfigError, match=rf"threads={count} is out of range; expected 1 to 4"):
            plan_study([*base, "tree=chain", "budget=2", f"threads={count}"])
        assert plan_study([*base, "tree=chain", "budget=2", "threads=4"]).settings.threads == 4

    def test_combinations_are_the_same(self, base: list[str]) -> None:
        def names(plan: StudyPlan) -> list[str]:
            return [combination.identifier for combination in plan.combinations]

        grid = [*base, "tree=chain", "budget=2"]
        assert names(plan_study(grid)) == names(plan_study([*grid, "threads=1", "cost.measure=again"]))


@pytest.mark.usefixtures("asked")
def test_a_sweep_on_a_pipe(base: list[str], run: Run, tmp_path: Path) -> None:
    """A line for each stage that has something to do."""
    said = run("sweep", *base, "tree=chain", "budget=2", "--out", tmp_path / "out", "--json")
    lines = [line.rpartition(", about")[0] for line in said.err.splitlines() if ", about" in line]
    assert lines == [
        "tiny: load 1 models",
        "tiny: load 1 models",
        f"tiny: record {3 * NEW} tokens",
        "tiny: annotate 3 prompts",
        "tiny: replay 6 rows",
        "tables 6 rows",
    ]
    assert "6 rows, 0 of them reused" in said.err
