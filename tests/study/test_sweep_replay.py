from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.tiny_models import PairFolders

from specdraft import cli
from specdraft.bench.curve import CostCurve
from specdraft.commands.options import USAGE
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.errors import ResultsError
from specdraft.models import loading
from specdraft.models.files import ModelFiles
from specdraft.results.comparisons import COLUMNS
from specdraft.results.metrics import COUNTS
from specdraft.study.engines import replay
from specdraft.study.plan import plan_study
from specdraft.study.progress import Progress
from specdraft.study.run import Outcome, run_study
from specdraft.traces import batches
from specdraft.traces import library as traces
from specdraft.traces.store import TraceStore

TEXTS = [
    ("a", "story", "Once upon a time"),
    ("b", "story", "It was late"),
    ("c", "code", "def f(x):"),
    ("d", "code", "import"),
]
NOT_FITTED = ("chain", "kary", "beam", "wide", "best_first")
TREES = [*NOT_FITTED, "hindsight", "measured", "sequoia"]
TABLES = ("records", "summary", "by_category", "comparisons", "lengths", "positions", "nodes", "steps")
DRAFT, VERIFY = [1e-3, 1e-3, 2e-3, 3e-3, 4e-3], [5e-3, 6e-3, 7e-3, 8e-3, 9e-3]
CURVE = CostCurve([1, 2, 4, 8, 16], DRAFT, VERIFY, 5e-3, 1e-3, 5e-4, 2e-2, 1e-2, 1, "made up")


def pair_overrides(folders: PairFolders, path: Path) -> list[str]:
    path.write_text("".join(json.dumps({"question_id": i, "category": c, "prompt": p}) + "\n" for i, c, p in TEXTS))
    pair = [f"pair.target.path={folders.target}", f"pair.draft.path={folders.draft}", "pair.name=tiny"]
    return [*pair, "prompts=jsonl", f"prompts.path={path}", "max_new_tokens=10"]


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return pair_overrides(tiny_pair_folders, tmp_path_factory.mktemp("prompts") / "prompts.jsonl")


GRID = ["tree=chain,kary,beam,wide,best_first,sequoia,measured", "budget=2,5", "output.steps=true"]


@pytest.fixture(scope="module", autouse=True)
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where traces go that nobody asks about; costs are made up."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("traces")
        patch.setenv("SPECDRAFT_TRACES", str(folder))
        patch.setattr("specdraft.study.engines.replay.pair_costs", lambda *given: CURVE)
        yield folder


@pytest.fixture(scope="module")
def replayed(base: list[str], shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Do not write into its folder."""
    return run_study(plan_study([*base, *GRID]), tmp_path_factory.mktemp("replayed") / "study")


@pytest.fixture(scope="module")
def live(base: list[str], shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    plan = plan_study([*base, *GRID, "engine=live"])
    assert plan.skipped == []
    return run_study(plan, tmp_path_factory.mktemp("live") / "study")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A store of one's own."""
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return tmp_path / "traces"


class Calls:
    """Prompts that were recorded and annotated; can be interrupted before a batch."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.recorded = self.annotated = self.loaded = 0
        self.stop: Callable[[Calls], bool] = lambda calls: False
        record, annotate, load = traces.record_trajectories, ModelDrafter.annotate, loading.load_model

        def recording(model: Any, prompts: Any, *given: Any) -> Any:
            if self.stop(self):
                raise KeyboardInterrupt
            self.recorded += len(prompts)
            return record(model, prompts, *given)

        def annotating(drafter: ModelDrafter, texts: Any) -> Any:
            if self.stop(self):
                raise KeyboardInterrupt
            self.annotated += len(texts)
            return annotate(drafter, texts)

        def counted(*given: Any) -> Any:
            self.loaded += 1
            return load(*given)

        patch.setattr(traces, "record_trajectories", recording)
        patch.setattr(ModelDrafter, "annotate", annotating)
        patch.setattr(loading, "load_model", counted)

    def take(self) -> tuple[int, int]:
        found, self.recorded, self.annotated = (self.recorded, self.annotated), 0, 0
        return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def read(out: Path, table: str) -> pd.DataFrame:
    return pd.read_csv(out / f"{table}.csv", keep_default_na=False, na_values=[""])


def counts(out: Path, trees: tuple[str, ...] = NOT_FITTED) -> pd.DataFrame:
    """Counts by tree, budget and prompt, whichever engine ran."""
    records = read(out, "records")
    keys = ["tree", "budget", "prompt_id"]
    return records[records["tree"].isin(trees)].set_index(keys)[["nodes", "depth", *COUNTS, "loop_share"]].sort_index()


class TestReplayed:
    def test_all_is_there(self, replayed: Outcome) -> None:
        assert replayed.failures == []
        records, summary = read(replayed.out, "records"), read(replayed.out, "summary")
        assert sorted(zip(summary["tree"], summary["budget"], strict=True)) == [
            (tree, budget) for tree in sorted(TREES) for budget in (2, 5)
        ]
        assert len(records) == replayed.rows == 2 * len(TREES) * len(TEXTS)
        assert set(records["engine"]) == set(summary["engine"]) == {"replay"}
        made = replayed.tables | replayed.tables_of([*summary["combination"]])
        for table in TABLES:
            assert len(read(replayed.out, table)) == len(made[f"{table}.csv"]) > 0

    def test_times_are_estimates(self, replayed: Outcome) -> None:
        for table in ("records", "summary", "by_category"):
            found = read(replayed.out, table)
            for column in ("wall_s", "prefill_s", "draft_s", "verify_s", "other_s", "tokens_per_s", "speedup"):
                assert found[column].isna().all(), column
            for column in ("est_tokens_per_s", "est_speedup"):
                assert (found[column] > 0).all(), column
        records = read(replayed.out, "records").set_index(["tree", "budget", "prompt_id"])
        one = records.loc[("chain", 2, "a")]
        seconds = 2e-2 + one["steps"] * (2 * 1e-3 + 6.5e-3 + 1e-3)
        assert one["est_tokens_per_s"] == pytest.approx(one["new_tokens"] / seconds, rel=1e-4)
        assert one["est_speedup"] == pytest.approx((1e-2 + (one["new_tokens"] - 1) * 5e-3) / seconds, rel=1e-4)

    def test_times_of_dynamic_trees(self, replayed: Outcome) -> None:
        """Prefill, and for each step its verification, the rest, and one or two levels with their selection."""
        records, steps = read(replayed.out, "records"), read(replayed.out, "steps")
        one = records.set_index(["tree", "budget", "prompt_id"]).loc[("best_first", 2, "a")]
        taken = steps[(steps["tree"] == "best_first") & (steps["budget"] == 2) & (steps["prompt_id"] == "a")]
        verified = np.interp(taken["drafted_tokens"] + 1, CURVE.sizes, VERIFY).sum() + 1e-3 * len(taken)
        spent, level = one["new_tokens"] / one["est_tokens_per_s"] - 2e-2 - verified, 1e-3 + 5e-4
        assert len(taken) * level - 1e-6 <= spent <= 2 * len(taken) * level + 1e-6

    def test_manifest(self, replayed: Outcome) -> None:
        manifest = json.loads((replayed.out / "manifest.json").read_text())
        assert manifest["costs"]["tiny"] == json.loads(json.dumps(CURVE.as_dict()))
        assert (manifest["certificate"]["replayed"], manifest["certificate"]["compared"]) == (replayed.rows, 0)

    def test_comparisons(self, replayed: Outcome) -> None:
        found = read(replayed.out, "comparisons")
        assert list(found.columns) == COLUMNS
        assert len(found) == 2 * 3 * len(TREES) * (len(TREES) - 1) // 2
        summary = read(replayed.out, "summary").set_index(["tree", "budget"])
        for one in found.itertuples():
            ratios = [summary.loc[(tree, one.budget), one.metric] for tree in (one.tree_a, one.tree_b)]
            assert one.difference == pytest.approx(ratios[0] - ratios[1], abs=2e-5)
        assert found[["difference_lo", "difference_hi"]].isna().all(axis=None)  # fewer than 5 prompts

    def test_counts_are_those_of_live_decoding(self, replayed: Outcome, live: Outcome) -> None:
        pd.testing.assert_frame_equal(counts(replayed.out), counts(live.out))
        assert counts(live.out)["accepted_tokens"].sum() > 0
        for table in ("lengths", "positions", "nodes", "steps"):
            one, other = (read(out, table).drop(columns=["combination", "engine"]) for out in (replayed.out, live.out))
            one = one[one["tree"].isin(set(other["tree"]))]  # fitted ones too
            keys = [c for c in one.columns if c not in ("steps", "reached", "accepted", "mean_weight")]
            pd.testing.assert_frame_equal(
                *(t.sort_values(keys).reset_index(drop=True)[list(one.columns)] for t in (one, other))
            )
        assert set(read(live.out, "records")["engine"]) == {"live"}
        assert read(live.out, "records")["est_speedup"].isna().all()

    def test_identities_hold(self, replayed: Outcome) -> None:
        records = read(replayed.out, "records")
        assert (records["new_tokens"] == 1 + records["accepted_tokens"] + records["bonus_tokens"]).all()
        assert (records["drafted_tokens"] == records["steps"] * records["nodes"]).all()
        assert (records["accepted_tokens"] <= records["steps"] * records["depth"]).all()
        assert (records.groupby("prompt_id")["new_tokens"].nunique() == 1).all()
        lengths = read(replayed.out, "lengths").groupby("combination")["steps"].sum()
        pd.testing.assert_series_equal(lengths, records.groupby("combination")["steps"].sum())

    def test_siblings_tell_of_the_level_below(self, replayed: Outcome) -> None:
        """At each depth all child ranks together: what the level below tried and accepted, of every kind of tree."""
        siblings = read(replayed.out, "siblings").groupby(["combination", "depth"]).sum(numeric_only=True)
        here = read(replayed.out, "positions").set_index(["combination", "depth"]).sort_index()[["reached", "accepted"]]
        pd.testing.assert_series_equal(siblings["accepted"], here["accepted"], check_dtype=False)
        below = here.rename(index=lambda depth: depth - 1, level="depth").reindex(here.index, fill_value=0)
        assert siblings["next_reached"].tolist() == below["reached"].tolist()
        assert siblings["next_accepted"].tolist() == below["accepted"].tolist()
        assert below["accepted"].sum() > 0

    def test_reference_rows_can_be_repeated(self, base: list[str], replayed: Outcome, tmp_path: Path) -> None:
        alone = plan_study([*base, "tree=wide", "budget=5"])
        assert [c.shape.kind for c in alone.combinations] == ["wide", "chain", "hindsight"]
        study = {c.identifier for c in plan_study([*base, *GRID]).combinations}
        for combination in alone.combinations:
            again = plan_study(list(combination.overrides))
            assert again.combinations[0].identifier == combination.identifier
            assert combination.identifier in study
        hindsight = plan_study(shlex.split(shlex.join(alone.combinations[2].overrides)))
        out = run_study(hindsight, tmp_path / "out").out
        same = counts(out, ("hindsight",))
        pd.testing.assert_frame_equal(same, counts(replayed.out, ("hindsight",)).loc[same.index])

    def test_fitted_trees_of_two_prompts_differ(self, replayed: Outcome) -> None:
        """Each half of the prompts has a tree of its own; together the rows name the nodes of both."""
        nodes = read(replayed.out, "nodes")
        listed = nodes[(nodes["tree"] == "measured") & (nodes["budget"] == 5)]["rank_path"]
        assert 5 <= len(listed) <= 10
        assert nodes["mean_weight"].between(0, 1).all()


def test_engine_replay_is_what_auto_does(base: list[str], replayed: Outcome) -> None:
    assert {c.identifier for c in plan_study([*base, *GRID, "engine=replay"]).combinations} == {
        c.identifier for c in plan_study([*base, *GRID]).combinations
    }


def test_repeats_are_equal(base: list[str], tmp_path: Path) -> None:
    records = read(
        run_study(plan_study([*base, "tree=kary", "budget=3", "repeats=2"]), tmp_path / "out").out, "records"
    )
    first, second = (records[records["repeat"] == n].drop(columns="repeat").reset_index(drop=True) for n in (0, 1))
    pd.testing.assert_frame_equal(first, second)


class TestTraces:
    def test_another_study_records_nothing(self, base: list[str], fresh: Path, tmp_path: Path, calls: Calls) -> None:
        first = run_study(plan_study([*base, "tree=kary", "budget=4"]), tmp_path / "one")
        assert calls.take() == (len(TEXTS), len(TEXTS))
        second = run_study(plan_study([*base, "tree=kary,beam", "budget=4", "name=other"]), tmp_path / "two")
        assert calls.take() == (0, 0)
        pd.testing.assert_frame_equal(counts(first.out, ("kary",)), counts(second.out, ("kary",)))
        assert {path.suffix for path in fresh.iterdir()} == {".json", ".safetensors"}

    def test_another_study_loads_no_model(
        self, base: list[str], fresh: Path, tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = [*base, "tree=kary,best_first,measured", "budget=2", "report=false"]
        first = run_study(plan_study(grid), tmp_path / "one")
        assert calls.loaded == 2
        monkeypatch.setattr(loading, "load_model", lambda *given: pytest.fail("a model was loaded"))
        second = run_study(plan_study([*grid, "name=other"]), tmp_path / "two")
        assert not second.failures
        pd.testing.assert_frame_equal(counts(first.out), counts(second.out))
        said = [json.loads((outcome.out / "manifest.json").read_text()) for outcome in (first, second)]
        for part in ("models", "certificate", "costs"):
            assert said[0][part] == said[1][part]
        looked_up = plan_study([*base, "drafter=ngram", "tree=chain", "budget=2"])
        assert not run_study(looked_up, tmp_path / "n").failures

    def test_a_new_drafter_is_loaded_without_its_target(
        self,
        base: list[str],
        fresh: Path,
        tmp_path: Path,
        tiny_pair_folders: PairFolders,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        loaded, load = list[str](), loading.load_model

        def watched(files: ModelFiles, *given: Any) -> Any:
            loaded.append(files.folder.name)
            return load(files, *given)

        monkeypatch.setattr(loading, "load_model", watched)
        run_study(plan_study([*base, "drafter=ngram", "tree=chain", "budget=2"]), tmp_path / "one")
        assert loaded == ["target"]
        run_study(plan_study([*base, "tree=kary", "budget=2"]), tmp_path / "two")
        assert loaded == ["target", "draft"]

    def test_a_pair_that_cannot_be_loaded_any_more_says_so_once(
        self, base: list[str], fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Said(Progress):
            def failed(self, what: str, why: str) -> None:
                said.append(f"{what}: {why}")

        said: list[str] = []
        grid = [*base, "tree=kary,beam", "budget=2"]
        assert not run_study(plan_study(grid), tmp_path / "out").failures

        def broken(*given: Any) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(loading, "load_model", broken)
        longer = plan_study([*grid, "max_new_tokens=10,11"])
        outcome = run_study(longer, tmp_path / "out", progress=Said())
        assert said == ["all 4 combinations of tiny: RuntimeError: broken"]  # with the references beside them
        assert {failure.error for failure in outcome.failures} == {"RuntimeError: broken"}
        assert set(read(outcome.out, "records")["max_new_tokens"]) == {10}

    def test_damaged_traces_are_recorded_again(
        self, base: list[str], fresh: Path, tmp_path: Path, calls: Calls
    ) -> None:
        plan = plan_study([*base, "tree=kary", "budget=4"])
        first = run_study(plan, tmp_path / "one")
        texts = [trace.key for trace in TraceStore(fresh).list() if trace.about["kind"] in ("trajectory", "annotation")]
        for path in (fresh / f"{key}.safetensors" for key in texts[:3]):
            path.write_bytes(path.read_bytes()[:40])
        calls.take()
        second = run_study(plan, tmp_path / "two")
        assert sum(calls.take()) == 3
        pd.testing.assert_frame_equal(counts(first.out), counts(second.out))

    def test_a_store_that_cannot_be_written(
        self, base: list[str], tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "file"))
        with pytest.raises(ResultsError, match=f"{tmp_path / 'file'}.*cannot be written"):
            run_study(plan_study([*base, "tree=kary", "budget=4"]), tmp_path / "out")
        assert calls.take() == (0, 0)

    def test_interrupted_while_recording(
        self,
        base: list[str],
        replayed: Outcome,
        fresh: Path,
        tmp_path: Path,
        calls: Calls,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(batches.ROWS, "cpu", 2)
        plan, out = plan_study([*base, *GRID]), tmp_path / "out"
        for stop, before in ((lambda c: c.recorded == 2, (2, 0)), (lambda c: c.annotated == 2, (2, 2))):
            calls.stop = stop
            with pytest.raises(KeyboardInterrupt):
                run_study(plan, out)
            assert calls.take() == before  # the batch in flight is lost, no other one
            assert {"records.csv", "summary.csv", "comparisons.csv", "manifest.json"} <= {
                path.name for path in out.iterdir()
            }
            assert len(read(out, "records")) == 0
        calls.stop = lambda c: False
        outcome = run_study(plan, out)
        assert calls.take() == (0, 2)
        assert outcome.failures == []
        pd.testing.assert_frame_equal(counts(out, tuple(TREES)), counts(replayed.out, tuple(TREES)))

    def test_interrupted_while_replaying(
        self, base: list[str], replayed: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan, out, done = plan_study([*base, *GRID]), tmp_path / "out", []

        def stopping(method: Any) -> Any:
            def stops(*given: Any) -> Any:
                if len(done) == 5:
                    raise KeyboardInterrupt
                done.append(given)
                return method(*given)

            return stops

        with monkeypatch.context() as patch:
            for name in ("run", "run_plan"):
                patch.setattr(replay.Replayer, name, stopping(getattr(replay.Replayer, name)))
            with pytest.raises(KeyboardInterrupt):
                run_study(plan, out)
        assert len(read(out, "records")) == 5 * len(TEXTS)
        outcome = run_study(plan, out)
        assert (outcome.reused, outcome.rows) == (5 * len(TEXTS), replayed.rows - 5 * len(TEXTS))
        pd.testing.assert_frame_equal(counts(out, tuple(TREES)), counts(replayed.out, tuple(TREES)))


class TestResume:
    @pytest.fixture
    def copy(self, replayed: Outcome, tmp_path: Path) -> Path:
        return Path(shutil.copytree(replayed.out, tmp_path / "copy"))

    def test_nothing_is_done_twice(self, base: list[str], replayed: Outcome, copy: Path, calls: Calls) -> None:
        outcome = run_study(plan_study([*base, *GRID]), copy)
        assert (outcome.rows, outcome.reused, calls.loaded) == (0, replayed.rows, 0)
        for table in TABLES:
            assert (copy / f"{table}.csv").read_bytes() == (replayed.out / f"{table}.csv").read_bytes(), table
        assert json.loads((copy / "manifest.json").read_text())["costs"]["tiny"]["device"] == "made up"

    def test_the_grid_may_grow(self, base: list[str], replayed: Outcome, copy: Path, calls: Calls) -> None:
        outcome = run_study(plan_study([*base, "tree=chain,kary", "budget=2,7"]), copy)
        assert calls.take() == (0, 0)
        assert (outcome.rows, outcome.reused) == (3 * len(TEXTS), 3 * len(TEXTS))  # hindsight beside them
        assert len(read(copy, "summary")) == 2 * len(TREES) + 3
        before = counts(replayed.out, tuple(TREES))
        pd.testing.assert_frame_equal(counts(copy, tuple(TREES)).loc[before.index], before)

    def test_engines_stand_side_by_side(self, base: list[str], copy: Path) -> None:
        run_study(plan_study([*base, "tree=kary", "budget=2", "engine=live"]), copy)
        summary = read(copy, "summary").set_index(["tree", "budget", "engine"])
        one, other = (summary.loc[("kary", 2, engine)] for engine in ("replay", "live"))
        assert one[list(COUNTS)].tolist() == other[list(COUNTS)].tolist()
        assert (np.isnan(one["speedup"]), np.isnan(other["est_speedup"])) == (True, True)
        comparisons = read(copy, "comparisons")
        assert set(comparisons[comparisons["engine"] == "live"]["tree_a"]) == set()


def test_a_fault_in_one_tree_leaves_the_others(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, run_plan = replay.Replayer.run, replay.Replayer.run_plan

    def failing(self: Any, shape: Any, budget: int, *given: Any) -> Any:
        if budget == 5:
            raise RuntimeError("boom")
        return run(self, shape, budget, *given)

    def failing_plan(self: Any, plan: Any, *given: Any) -> Any:
        if plan.nodes == 5:
            raise RuntimeError("boom")
        return run_plan(self, plan, *given)

    monkeypatch.setattr(replay.Replayer, "run", failing)
    monkeypatch.setattr(replay.Replayer, "run_plan", failing_plan)
    outcome = run_study(plan_study([*base, "tree=kary", "budget=2,5"]), tmp_path / "out")
    assert {f.error for f in outcome.failures} == {"RuntimeError: boom"}
    assert len(outcome.failures) == 3
    assert set(read(outcome.out, "records")["budget"]) == {2}


class TestSkipped:
    def test_fitted_trees_decode_live_too(self, base: list[str]) -> None:
        plan = plan_study([*base, "tree=chain,measured", "budget=2", "engine=live"])
        assert {c.shape.kind for c in plan.combinations} >= {"chain", "measured"}
        assert plan.skipped == []

    @pytest.mark.parametrize("kind", ["measured", "sequoia"])
    def test_fitted_trees_need_two_prompts(self, base: list[str], kind: str) -> None:
        plan = plan_study([*base, f"tree=chain,{kind}", "budget=2", "prompts.limit=1"])
        assert {c.shape.kind for c in plan.combinations} == {"chain", "hindsight"}
        ((_, reason),) = plan.skipped
        assert reason == f"tree={kind} is fitted on half of the prompts; there is only 1"
        assert plan_study([*base, f"tree={kind}", "budget=2", "prompts.limit=2"]).skipped == []

    def test_one_prompt(self, base: list[str], tmp_path: Path) -> None:
        outcome = run_study(plan_study([*base, "tree=kary", "budget=2", "prompts.limit=1"]), tmp_path / "out")
        found = read(outcome.out, "comparisons")
        assert found["difference"].notna().all()
        assert found[["difference_lo", "difference_hi"]].isna().all(axis=None)

    def test_on_the_command_line(
        self, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(
            sys,
            "argv",
            ["specdraft", "sweep", *base, "tree=kary", "tree.k=1000", "budget=300", "--out", str(tmp_path / "out")],
        )
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        assert (stop.value.code, said.out) == (USAGE, "")
        (line,) = said.err.splitlines()
        assert line.startswith("error: no combination is left to run; ")


@pytest.mark.parametrize(("limit", "steps"), [(1, False), (2, True)])
def test_texts_of_one_token_have_no_step(base: list[str], tmp_path: Path, limit: int, steps: bool) -> None:
    own = [text for text in base if not text.startswith("max_new_tokens")]
    outcome = run_study(
        plan_study([*own, f"max_new_tokens={limit}", "tree=kary,measured", "budget=3"]), tmp_path / "out"
    )
    assert outcome.failures == []
    records = read(outcome.out, "records")
    assert records["acceptance_rate"].notna().all() == steps
    assert (records["est_tokens_per_s"] > 0).all()
