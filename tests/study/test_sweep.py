from __future__ import annotations

import errno
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from support.tiny_models import PairFolders, byte_tokenizer, save_model, save_pair, tiny_pair_models
from support.written import rows_in

from specdraft.decoding.verifier import Verifier
from specdraft.drafters.on_demand import PairOnDemand
from specdraft.errors import ResultsError
from specdraft.models import loading
from specdraft.models.files import zoo_folder
from specdraft.results.files import FILES
from specdraft.results.journal import Journal
from specdraft.results.metrics import COUNTS
from specdraft.results.study_tables import read_records
from specdraft.study.engines import live
from specdraft.study.folder import rows_there
from specdraft.study.ledger import Ledger
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.progress import Progress
from specdraft.study.run import Outcome, run_study

TREES = "tree=chain,kary,wide"
PROMPTS = 3
WRITTEN = {
    "records.csv",
    "summary.csv",
    "by_category.csv",
    "lengths.csv",
    "positions.csv",
    "nodes.csv",
    "siblings.csv",
    "manifest.json",
    "config.yaml",
}


@pytest.fixture(scope="module")
def tiny_pair_folders(tmp_path_factory: pytest.TempPathFactory) -> PairFolders:
    """With the layer more that a wrong mask shows in."""
    return save_pair(tmp_path_factory.mktemp("tiny-pair"))


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The tiny pair on three prompts of two categories, decoded live."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [("a", "story", "Once upon a time"), ("b", "story", "It was late"), ("c", "code", "def f(x):")]
    path.write_text("".join(json.dumps({"question_id": i, "category": c, "prompt": p}) + "\n" for i, c, p in rows))
    return [
        f"pair.target.path={tiny_pair_folders.target}",
        f"pair.draft.path={tiny_pair_folders.draft}",
        "pair.name=tiny",
        "prompts=jsonl",
        f"prompts.path={path}",
        "max_new_tokens=10",
        "engine=live",
    ]


@pytest.fixture(scope="module")
def plan(base: list[str]) -> StudyPlan:
    return plan_study([*base, TREES, "budget=2,4"])


@pytest.fixture(scope="module")
def finished(plan: StudyPlan, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A study as run without a disturbance. Do not write into its folder."""
    return run_study(plan, tmp_path_factory.mktemp("finished") / "study")


@pytest.fixture
def copy(finished: Outcome, tmp_path: Path) -> Path:
    """A copy of the finished study."""
    return Path(shutil.copytree(finished.out, tmp_path / "copy"))


class Watch:
    """Counts what a sweep decodes and can put a fault into it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.decoded: list[Any] = []  # the plan of each call
        self.loaded = 0
        self.fault: Callable[[Any], BaseException | None] = lambda plan: None
        decode, load = live.decode, PairOnDemand.load

        def watched(verifier: Any, drafter: Any, plan: Any, *rest: Any, **how: Any) -> Any:
            if (error := self.fault(plan)) is not None:
                raise error
            self.decoded.append(plan)
            return decode(verifier, drafter, plan, *rest, **how)

        def counted(pair: PairOnDemand) -> None:
            self.loaded += 1
            load(pair)

        patch.setattr(live, "decode", watched)
        patch.setattr(PairOnDemand, "load", counted)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def read(out: Path, file: str) -> pd.DataFrame:
    return pd.read_csv(out / file, keep_default_na=False, na_values=[""])


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return found


def failures(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]


def counts(out: Path) -> set[tuple[Any, ...]]:
    """Every row of records.csv without its times; a row that is there twice is an error."""
    keys = ["combination", "tree", "budget", "prompt_id", "category", "repeat"]
    listed = [tuple(row) for row in read(out, "records.csv")[[*keys, *COUNTS, "loop_share"]].to_numpy().tolist()]
    assert len(listed) == len(set(listed))
    return set(listed)


def kary(budget: int) -> Callable[[Any], bool]:
    return lambda plan: bool(plan.nodes == budget and not plan.topology.is_chain and plan.depth > 1)


class TestFinished:
    def test_files(self, finished: Outcome) -> None:
        assert WRITTEN | {"failures.jsonl", "journal.jsonl"} <= set(os.listdir(finished.out)) <= {*FILES, "parts"}
        for file, table in finished.tables.items():
            assert len(read(finished.out, file)) == len(table)
        assert (finished.rows, finished.reused, finished.failures) == (6 * PROMPTS, 0, [])
        assert failures(finished.out) == []

    def test_every_combination_is_there(self, finished: Outcome, plan: StudyPlan) -> None:
        records, summary = read(finished.out, "records.csv"), read(finished.out, "summary.csv")
        assert len(records) == 6 * PROMPTS
        assert set(records["combination"]) == {c.identifier for c in plan.combinations}
        assert sorted(zip(summary["tree"], summary["budget"], strict=True)) == sorted(
            (tree, budget) for tree in ("chain", "kary", "wide") for budget in (2, 4)
        )
        assert list(read(finished.out, "by_category.csv")["category"]) == ["story", "code"] * 6
        assert {"pair", "target", "draft", "engine", "dtype"} <= set(records.columns)
        assert set(records[["pair", "target", "draft", "dtype", "engine", "prompts"]].drop_duplicates().iloc[0]) == {
            *("tiny", "target", "draft", "float32", "live", "prompts.jsonl")
        }

    def test_identities_hold(self, finished: Outcome) -> None:
        records = read(finished.out, "records.csv")
        assert (records["new_tokens"] == 1 + records["accepted_tokens"] + records["bonus_tokens"]).all()
        assert (records["drafted_tokens"] == records["steps"] * records["nodes"]).all()
        assert (records["accepted_tokens"] <= records["steps"] * records["depth"]).all()
        assert records["new_tokens"].between(1, 10).all()
        assert (
            (records["wall_s"] - records[["prefill_s", "draft_s", "verify_s", "other_s"]].sum(axis=1)).abs() < 1e-4
        ).all()
        assert records["accepted_tokens"].sum() > 0

    def test_certificate(self, finished: Outcome) -> None:
        certificate = manifest(finished.out)["certificate"]
        assert (certificate["compared"], certificate["identical"], certificate["ties"], certificate["bugs"]) == (
            18,
            18,
            [],
            [],
        )

    def test_manifest(self, finished: Outcome, plan: StudyPlan) -> None:
        facts = manifest(finished.out)
        assert facts["study"] == plan.identity
        assert {
            "python",
            "libraries",
            "source",
            "hardware",
            "threads",
            "models",
            "skipped",
            "failed",
            "wall_s",
        } <= facts.keys()
        for role, weights in zip(("target", "draft"), plan.combinations[0].weights, strict=True):
            assert facts["models"]["tiny"][role]["weights"] == weights
        assert (facts["combinations"], facts["prompts"], facts["failed"], facts["skipped"]) == (6, PROMPTS, 0, [])

    def test_config_makes_the_study_again(self, finished: Outcome, plan: StudyPlan) -> None:
        assert (finished.out / "config.yaml").read_text() == plan.shared_config

    def test_equal_trees_have_equal_rows(self, finished: Outcome) -> None:
        records = read(finished.out, "records.csv").set_index(["tree", "budget", "prompt_id"])
        columns = [*COUNTS, "wall_s", "draft_s"]
        assert records.loc[("kary", 2), columns].equals(records.loc[("wide", 2), columns])
        assert not records.loc[("kary", 4), columns].equals(records.loc[("wide", 4), columns])


def test_equal_trees_are_decoded_once(base: list[str], tmp_path: Path, watch: Watch) -> None:
    outcome = run_study(plan_study([*base, "tree=kary,wide", "budget=2"]), tmp_path / "out")
    assert len(watch.decoded) == PROMPTS
    assert outcome.rows == 2 * PROMPTS


def test_one_load_and_plain_decoding_per_pair(
    plan: StudyPlan, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: list[Any] = []
    plain_tokens = live.plain_tokens
    monkeypatch.setattr(live, "plain_tokens", lambda *given: plain.append(given) or plain_tokens(*given))
    run_study(plan, tmp_path / "out")
    assert (watch.loaded, len(plain), len(watch.decoded)) == (1, PROMPTS, 5 * PROMPTS)


class TestResume:
    def test_nothing_is_done_twice(self, plan: StudyPlan, finished: Outcome, copy: Path, watch: Watch) -> None:
        outcome = run_study(plan, copy)
        assert (watch.decoded, watch.loaded) == ([], 0)
        assert (outcome.rows, outcome.reused) == (0, 6 * PROMPTS)
        for file in WRITTEN - {"manifest.json"}:
            assert (copy / file).read_bytes() == (finished.out / file).read_bytes(), file
        assert manifest(copy)["models"] == manifest(finished.out)["models"]

    def test_the_grid_may_grow(self, base: list[str], copy: Path, finished: Outcome, watch: Watch) -> None:
        outcome = run_study(plan_study([*base, TREES, "budget=2,3"]), copy)
        assert {(p.nodes, p.depth) for p in watch.decoded} == {(3, 3), (3, 2), (3, 1)}
        assert (len(watch.decoded), outcome.rows, outcome.reused) == (3 * PROMPTS, 3 * PROMPTS, 3 * PROMPTS)
        assert counts(copy) > counts(finished.out)
        assert len(read(copy, "summary.csv")) == 9
        run_study(plan_study([*base, "tree=chain", "budget=2", "max_new_tokens=4"]), copy)
        assert set(read(copy, "summary.csv")["max_new_tokens"]) == {4, 10}

    def test_what_would_be_reused(self, base: list[str], copy: Path) -> None:
        plan = plan_study([*base, "tree=chain", "budget=2,3"])
        assert list(rows_there(plan, copy).values()) == [PROMPTS, 0]
        assert list(rows_there(plan, copy / "none").values()) == [0, 0]
        assert list(rows_there(plan_study([*base, "tree=chain", "budget=2,3", "seed=1"]), copy).values()) == [
            0,
            0,
        ]

    @pytest.mark.parametrize(
        ("change", "differs"), [("prompts.limit=2", "prompts"), ("seed=1", "seed"), ("name=other", "name")]
    )
    def test_another_study_is_refused(self, base: list[str], copy: Path, change: str, differs: str) -> None:
        before = {path.name: path.read_bytes() for path in copy.iterdir()}
        with pytest.raises(
            ResultsError, match=rf"another study \({differs} differ\).*choose another --out, or start over with --fresh"
        ):
            run_study(plan_study([*base, "tree=chain", "budget=2", change]), copy)
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == before

    def test_fresh_starts_over(self, base: list[str], copy: Path, watch: Watch) -> None:
        (copy / "notes.txt").write_text("mine")
        outcome = run_study(plan_study([*base, "tree=chain", "budget=2", "seed=1"]), copy, fresh=True)
        assert (len(watch.decoded), outcome.reused) == (PROMPTS, 0)
        assert len(read(copy, "records.csv")) == PROMPTS
        assert (copy / "notes.txt").read_text() == "mine"

    def test_interrupted(self, plan: StudyPlan, finished: Outcome, tmp_path: Path, watch: Watch) -> None:
        watch.fault = lambda plan: KeyboardInterrupt() if len(watch.decoded) == 7 else None
        with pytest.raises(KeyboardInterrupt):
            run_study(plan, tmp_path / "out")
        assert set(os.listdir(tmp_path / "out")) >= WRITTEN
        assert counts(tmp_path / "out") < counts(finished.out)
        watch.fault = lambda plan: None
        run_study(plan, tmp_path / "out")
        assert len(watch.decoded) == 5 * PROMPTS
        assert counts(tmp_path / "out") == counts(finished.out)

    def test_interrupted_before_the_first_row(
        self, plan: StudyPlan, finished: Outcome, tmp_path: Path, watch: Watch
    ) -> None:
        watch.fault = lambda plan: KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            run_study(plan, tmp_path / "out")
        assert read(tmp_path / "out", "records.csv").columns.equals(read(finished.out, "records.csv").columns)

    def test_killed_between_two_pairs(
        self, base: list[str], tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = plan_study([*base, "pair.name=first,second", "tree=chain", "budget=2"])
        watch.fault = lambda plan: KeyboardInterrupt() if len(watch.decoded) == PROMPTS + 1 else None
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Ledger, "write", lambda ledger: ledger.rows.close())
            run_study(plan, tmp_path / "out")
        watch.fault = lambda plan: None
        run_study(plan, tmp_path / "out")
        assert (len(watch.decoded), watch.loaded) == (2 * PROMPTS, 3)
        assert manifest(tmp_path / "out")["models"].keys() == {"first", "second"}

    def test_steps_are_listed_when_asked_for_later(self, base: list[str], copy: Path, finished: Outcome) -> None:
        assert not (copy / "steps.csv").exists()
        run_study(plan_study([*base, TREES, "budget=2,4", "output.steps=true"]), copy)
        assert counts(copy) == counts(finished.out)
        steps, records = read(copy, "steps.csv"), read(copy, "records.csv")
        keys = ["combination", "prompt_id", "repeat"]
        summed = steps.groupby(keys)[["drafted_tokens", "accepted_tokens", "bonus_tokens"]].sum()
        with_steps = records[records["steps"] > 0].set_index(keys).sort_index()
        assert summed.equals(with_steps[summed.columns])
        assert steps.groupby(keys).size().equals(with_steps["steps"])

    def test_replaced_weights_are_not_reused(
        self, base: list[str], finished: Outcome, tmp_path: Path, watch: Watch
    ) -> None:
        folders = {role: tmp_path / role for role in ("target", "draft")}
        for text in base[:2]:
            shutil.copytree(text.partition("=")[2], folders[Path(text).name])
        own = [*base, *(f"pair.{role}.path={folder}" for role, folder in folders.items()), "tree=chain"]
        out = tmp_path / "out"
        run_study(plan_study([*own, "budget=2"]), out)
        before, hashes = counts(out), manifest(out)["models"]["tiny"]["draft"]["weights"]
        weights = load_file(folders["draft"] / "model.safetensors")
        weights["lm_head.weight"] = weights["lm_head.weight"].roll(1, 0).contiguous()
        save_file(weights, folders["draft"] / "model.safetensors", {"format": "pt"})
        plan = plan_study([*own, "budget=2"])
        assert list(rows_there(plan, out).values()) == [0]
        assert (run_study(plan, out).reused, len(watch.decoded)) == (0, 2 * PROMPTS)
        assert counts(out) != before
        assert manifest(out)["models"]["tiny"]["draft"]["weights"] != hashes
        now = counts(out)
        run_study(plan_study([*own, "budget=3"]), out)  # a grid without that combination
        assert now < counts(out)
        assert len(counts(out)) == 2 * PROMPTS

    def test_two_sweeps_in_one_directory(self, plan: StudyPlan, copy: Path) -> None:
        with FileLock(copy / ".lock"), pytest.raises(ResultsError, match="another sweep is writing here"):
            run_study(plan, copy)
        run_study(plan, copy)


def test_what_is_written_says_nothing_of_folders_and_environment(
    base: list[str], tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_not-for-others")
    out = run_study(plan_study([*base, "tree=chain", "budget=2", "prompts.limit=1"]), tmp_path / "out").out
    told = {path.name: path.read_text() for path in out.iterdir() if path.name != "config.yaml"}
    for name, text in told.items():
        assert "not-for-others" not in text, name
        assert not [folder for folder in tiny_pair_folders if str(folder.parent) in text], name
    assert [manifest(out)["models"]["tiny"][role]["path"] for role in ("target", "draft")] == ["target", "draft"]


def test_the_time_of_resumed_runs_adds_up(plan: StudyPlan, copy: Path) -> None:
    (copy / "manifest.json").write_text(json.dumps(manifest(copy) | {"wall_s": 5000.0}))
    outcome = run_study(plan, copy)
    assert 5000 < outcome.wall_s < 6000
    assert manifest(copy)["wall_s"] == pytest.approx(outcome.wall_s, abs=60)


class TestDirectories:
    @pytest.fixture
    def small(self, base: list[str]) -> StudyPlan:
        return plan_study([*base, "tree=chain", "budget=2"])

    def test_foreign_files(self, small: StudyPlan, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("")
        for fresh in (False, True):
            with pytest.raises(ResultsError, match="not a study's; choose another --out"):
                run_study(small, tmp_path, fresh)
        assert os.listdir(tmp_path) == ["thesis.tex"]

    @pytest.mark.parametrize("text", ["{}", "[]", '{"name": "web app"}'])
    def test_foreign_manifest(self, small: StudyPlan, tmp_path: Path, text: str) -> None:
        for name, content in (("manifest.json", text), ("config.yaml", "mine")):
            (tmp_path / name).write_text(content)
        for fresh in (False, True):
            with pytest.raises(ResultsError, match=r"manifest\.json that is not a study's"):
                run_study(small, tmp_path, fresh)
        assert (tmp_path / "config.yaml").read_text() == "mine"

    def test_damaged_manifest(self, small: StudyPlan, copy: Path) -> None:
        (copy / "manifest.json").write_text('{"study": ')
        with pytest.raises(ResultsError, match=r"manifest\.json: cannot be read.*--fresh"):
            run_study(small, copy)
        assert run_study(small, copy, fresh=True).rows == PROMPTS

    def test_journal_gone(self, small: StudyPlan, copy: Path) -> None:
        (copy / "journal.jsonl").unlink()
        with pytest.raises(ResultsError, match=r"journal\.jsonl is gone"):
            run_study(small, copy)

    def test_killed_while_writing_a_file(self, small: StudyPlan, tmp_path: Path) -> None:
        (tmp_path / ".manifest.json.4711.tmp").write_text("{")
        assert run_study(small, tmp_path).rows == PROMPTS
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]

    def test_cannot_be_made(self, small: StudyPlan, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/specdraft")):
            with pytest.raises(ResultsError, match=f"{out}: cannot be written"):
                run_study(small, out)


class TestFailures:
    def test_others_are_written(self, plan: StudyPlan, finished: Outcome, tmp_path: Path, watch: Watch) -> None:
        out = tmp_path / "out"
        watch.fault = lambda plan: RuntimeError("boom\nat length") if kary(4)(plan) and len(watch.decoded) > 4 else None
        outcome = run_study(plan, out)
        (failure,) = outcome.failures
        assert failures(out) == [failure.as_dict()]
        assert failure.error == "RuntimeError: boom"
        assert failure.prompt_id == "b"
        assert counts(out) == {row for row in counts(finished.out) if row[1:3] != ("kary", 4)}
        assert manifest(out)["failed"] == 1
        (again,) = plan_study(shlex.split(failure.overrides)).combinations
        assert again.identifier == failure.combination

        run_study(plan_study([*plan.combinations[0].overrides]), out)  # another grid: the failure stays on record
        assert failures(out) == [failure.as_dict()]
        assert ("kary", 4) not in {row[1:3] for row in counts(out)}

        decoded, watch.fault = len(watch.decoded), lambda plan: None
        assert run_study(plan, out).failures == []
        assert len(watch.decoded) - decoded == PROMPTS - 1  # prompt a was done
        assert counts(out) == counts(finished.out)
        assert failures(out) == []

    def test_override_with_special_characters(self, base: list[str], tmp_path: Path, watch: Watch) -> None:
        watch.fault = lambda plan: RuntimeError("boom")
        plan = plan_study(
            [*base, "pair.name='it\\'s (tiny), really'", "tree=paths", "tree.paths=[[0],[1]],[[0],[0,1]]"]
        )
        for failure in run_study(plan, tmp_path / "out").failures:
            (again,) = plan_study(shlex.split(failure.overrides)).combinations
            assert again.identifier == failure.combination

    @pytest.mark.parametrize("where", ["decode", "load_model"])
    def test_out_of_memory(
        self, base: list[str], tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation")
        if where == "decode":
            watch.fault = lambda plan: error if plan.nodes == 4 else None
        else:

            def load_model(*given: Any) -> None:
                raise error

            monkeypatch.setattr(loading, "load_model", load_model)
        outcome = run_study(plan_study([*base, "tree=chain", "budget=2,4"]), tmp_path / "out")
        assert {f.error for f in outcome.failures} == {
            "CUDA out of memory; try a smaller budget, a shorter prompt, or quantised weights"
        }
        assert len(outcome.failures) == (1 if where == "decode" else 2)
        assert len(counts(tmp_path / "out")) == (PROMPTS if where == "decode" else 0)

    def test_progress_reaches_the_end(
        self, plan: StudyPlan, copy: Path, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Counting(Progress):
            def start(self, total: int, reused: int) -> None:
                self.due = total - reused

            def advance(self, rows: int) -> None:
                self.due -= rows

        def load_model(*given: Any) -> None:
            raise RuntimeError("broken")

        def run(out: Path) -> int:
            progress = Counting()
            run_study(plan, out, progress=progress)
            return progress.due

        watch.fault = lambda plan: RuntimeError("boom") if kary(4)(plan) else None
        assert run(tmp_path / "failing") == 0
        assert run(copy) == 0
        monkeypatch.setattr(loading, "load_model", load_model)
        assert run(tmp_path / "unloadable") == 0


class TestLosslessness:
    def test_planted_wrong_mask_is_a_bug(
        self, plan: StudyPlan, finished: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from specdraft.models.language_model import tail_mask

        def siblings_see_each_other(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            return tail_mask(torch.ones_like(visible).tril(), dtype)

        monkeypatch.setattr("specdraft.decoding.verifier.tail_mask", siblings_see_each_other)
        outcome = run_study(plan, tmp_path / "out")
        failed = {f.combination for f in outcome.failures}
        assert failed
        assert all(
            f.error.startswith("bug: the text differs from plain greedy decoding at token") for f in outcome.failures
        )
        assert failed <= {c.identifier for c in plan.combinations if c.keys["tree"] != "chain"}
        assert counts(tmp_path / "out") == {row for row in counts(finished.out) if row[0] not in failed}
        certificate = manifest(tmp_path / "out")["certificate"]
        assert certificate["bugs"] == [f.as_dict() for f in outcome.failures]
        assert certificate["identical"] == certificate["compared"] == 18 - PROMPTS * len(failed)

    def test_tie_is_reported_with_its_gap(
        self, base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A target whose every token has a twin with the same logit; rounding in the tree forward prefers the other
        one."""
        target, draft = tiny_pair_models()
        with torch.no_grad():
            target.lm_head.weight[3::2] = target.lm_head.weight[2::2]
        folders = [
            save_model(tmp_path / name, model, byte_tokenizer())
            for name, model in (("target", target), ("draft", draft))
        ]
        own = [*base, f"pair.target.path={folders[0]}", f"pair.draft.path={folders[1]}", "tree=kary", "budget=4"]
        verify = Verifier.verify

        def rounded(self: Verifier, tree: Any) -> Any:
            forward = verify(self, tree)
            logits = forward.logits.clone()
            logits[:, 3::2] += 1e-6
            return forward._replace(logits=logits)

        monkeypatch.setattr(Verifier, "verify", rounded)
        outcome = run_study(plan_study(own), tmp_path / "out")
        assert outcome.failures == []
        certificate = manifest(tmp_path / "out")["certificate"]
        assert certificate["bugs"] == []
        assert len(certificate["ties"]) == PROMPTS - certificate["identical"] > 0
        for tie in certificate["ties"]:
            assert tie["gap"] <= 1e-4
            assert tie["position"] >= 1
            assert tie["prompt_id"] in "abc"
        assert len(read(tmp_path / "out", "records.csv")) == PROMPTS


class TestFullDisk:
    def check_that_nothing_was_lost(self, plan: StudyPlan, finished: Outcome, out: Path, decoded: list[Any]) -> None:
        done = rows_in(out)
        assert 0 < len(done) < 6 * PROMPTS
        before = len(decoded)
        outcome = run_study(plan, out)
        assert outcome.reused == len(done)
        assert len(decoded) - before <= 6 * PROMPTS - len(done)
        assert counts(out) == counts(finished.out)

    def test_journal(
        self, plan: StudyPlan, finished: Outcome, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Handle:
            """A file on a disk with room for twelve lines."""

            def __init__(self, handle: Any) -> None:
                self.handle, self.room = handle, 12

            def __getattr__(self, name: str) -> Any:
                return getattr(self.handle, name)

            def write(self, text: bytes) -> int:
                self.room -= 1
                if self.room < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return int(self.handle.write(text))

        opened = Journal.__init__

        def open_on_a_small_disk(self: Journal, path: Path) -> None:
            opened(self, path)
            self._handle = Handle(self._handle)  # type: ignore[assignment]

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "__init__", open_on_a_small_disk)
            with pytest.raises(
                ResultsError, match=r"journal\.jsonl: cannot be written: No space left on device; what was .* kept"
            ):
                run_study(plan, tmp_path / "out")
        self.check_that_nothing_was_lost(plan, finished, tmp_path / "out", watch.decoded)

    @pytest.mark.parametrize("limit", [4_800, 5_555])
    def test_real_limit(self, plan: StudyPlan, finished: Outcome, tmp_path: Path, watch: Watch, limit: int) -> None:
        """No file may grow beyond the limit: the journal is torn in the middle of a line, tables cannot be written."""
        with file_size_limit(limit), pytest.raises(ResultsError, match="cannot be written: File too large"):
            run_study(plan, tmp_path / "out")
        assert (tmp_path / "out" / "journal.jsonl").stat().st_size <= limit
        self.check_that_nothing_was_lost(plan, finished, tmp_path / "out", watch.decoded)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def start_sweep(overrides: list[str], out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from specdraft.cli import main; main()", "sweep", *overrides, "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )


def kill_at_random(overrides: list[str], out: Path, total: int, kills: int) -> None:
    """Start the sweep again and again, killing it when a random number of rows is there, then let it finish."""
    rng, killed = random.Random(total), 0
    for kill in range(kills):
        done = len(rows_in(out))
        wanted = done + rng.randint(0, max(1, (total - done) // (kills - kill)))
        process = start_sweep(overrides, out)
        while process.poll() is None and len(rows_in(out)) < wanted:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= kills // 3  # the others were done before
    process = start_sweep(overrides, out)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()


@pytest.mark.slow
class TestKilled:
    def test_tiny_pair(self, base: list[str], tmp_path: Path) -> None:
        overrides = [*base, TREES, "budget=range(1,9)", "max_new_tokens=24"]
        whole = run_study(plan_study(overrides), tmp_path / "whole")
        kill_at_random(overrides, tmp_path / "killed", len(read_records(whole.out)), kills=5)
        assert counts(tmp_path / "killed") == counts(tmp_path / "whole")
        for file in ("lengths.csv", "positions.csv", "nodes.csv"):
            assert (tmp_path / "killed" / file).read_text() == (tmp_path / "whole" / file).read_text()
        assert manifest(tmp_path / "killed")["models"].keys() == {"tiny"}
        assert not [name for name in os.listdir(tmp_path / "killed") if name.startswith(".")]

    def test_replayed(self, base: list[str], tmp_path: Path) -> None:
        """Ten lengths, a part each, twice: greedy and sampled."""
        lengths = f"max_new_tokens={','.join(map(str, range(3, 13)))}"
        overrides = [*base, "engine=replay", "tree=chain,kary", "budget=1,2,3", "sampling.temperature=0,1"]
        overrides += ["acceptance=topk", lengths]
        whole = run_study(plan_study(overrides), tmp_path / "whole")
        kill_at_random(overrides, tmp_path / "killed", len(read_records(whole.out)), kills=6)
        for file in ("records.csv", "summary.csv", "lengths.csv", "positions.csv", "nodes.csv"):
            assert (tmp_path / "killed" / file).read_text() == (tmp_path / "whole" / file).read_text()

    @pytest.mark.skipif(not (zoo_folder() / "draft-tiny").is_dir(), reason="the bundled pair is not here")
    @pytest.mark.timeout(1200)
    def test_bundled_pair(self, tmp_path: Path) -> None:
        overrides = [
            "pair=zoo,zoo-tiny",
            "tree=chain,kary",
            "budget=4,8",
            "prompts.limit=5",
            "max_new_tokens=24",
            "engine=live",
        ]
        whole = run_study(plan_study(overrides), tmp_path / "whole")
        kill_at_random(overrides, tmp_path / "killed", len(read_records(whole.out)), kills=4)
        assert counts(tmp_path / "killed") == counts(tmp_path / "whole")
        assert manifest(tmp_path / "killed")["models"].keys() == {"zoo", "zoo-tiny"}
