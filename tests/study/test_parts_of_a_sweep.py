"""A replayed sweep that is stopped, torn or killed anywhere: no row is lost, none is doubled, none is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from support.tiny_models import PairFolders
from support.written import rows_in

from specdraft import load_study
from specdraft.bench.curve import CostCurve
from specdraft.results.parts import Parts
from specdraft.study.folder import rows_there
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.progress import Progress
from specdraft.study.run import run_study

TEXTS = ("Once upon a time", "It was late", "def f(x):")
LENGTHS = (3, 4, 5, 6, 7)  # a part each
CURVE = CostCurve([1, 2, 4], [1e-3] * 3, [5e-3] * 3, 5e-3, 1e-3, 5e-4, 2e-2, 1e-2, 1, "made up")
COMBINATIONS = len(LENGTHS) * 2 * 3  # chain and kary at two budgets, hindsight beside them
FILES = (
    "records.csv",
    "summary.csv",
    "by_category.csv",
    "comparisons.csv",
    "lengths.csv",
    "positions.csv",
    "nodes.csv",
    "siblings.csv",
)


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"question_id": str(i), "prompt": p}) + "\n" for i, p in enumerate(TEXTS)))
    pair = [f"pair.{role}.path={folder}" for role, folder in tiny_pair_folders._asdict().items()]
    lengths = f"max_new_tokens={','.join(map(str, LENGTHS))}"
    grid = ["tree=chain,kary", "budget=2,3", lengths, "report=false"]
    return [*pair, "pair.target.device=cpu", "pair.draft.device=cpu", "prompts=jsonl", f"prompts.path={path}", *grid]


@pytest.fixture(scope="module", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.mktemp("traces")))
        patch.setattr("specdraft.study.engines.replay.pair_costs", lambda *given: CURVE)  # the same in every run
        yield


@pytest.fixture(scope="module")
def plan(base: list[str]) -> StudyPlan:
    return plan_study(base)


@pytest.fixture(scope="module")
def whole(plan: StudyPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert run_study(plan, out).rows == COMBINATIONS * len(TEXTS)
    assert len(list((out / "parts").iterdir())) == len(LENGTHS)
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def check_equal(out: Path, whole: Path) -> None:
    for file in FILES:
        assert (out / file).read_text() == (whole / file).read_text(), file
    assert not list(out.rglob(".*"))


class Stop(Progress):
    """Ctrl-C once so many rows are there; what was said is kept."""

    def __init__(self, after: float) -> None:
        self.left, self.notes = after, list[str]()

    def note(self, what: str) -> None:
        self.notes.append(what)

    def advance(self, rows: int) -> None:
        self.left -= rows
        if self.left <= 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 19, 90])
def test_stopped_and_resumed(plan: StudyPlan, whole: Path, tmp_path: Path, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_study(plan, tmp_path / "out", progress=Stop(after))
    there = len(rows_in(tmp_path / "out"))
    assert after <= there < after + COMBINATIONS * len(TEXTS) // len(LENGTHS)
    assert len(pd.read_csv(tmp_path / "out" / "records.csv")) == there
    outcome = run_study(plan, tmp_path / "out")
    assert (outcome.reused, outcome.rows) == (there, COMBINATIONS * len(TEXTS) - there)
    check_equal(tmp_path / "out", whole)


@pytest.mark.parametrize("torn", ["part", "temporary"])
def test_a_part_that_a_crash_tore(plan: StudyPlan, whole: Path, copy: Path, torn: str) -> None:
    part = copy / "parts" / "000003.parquet"
    if torn == "temporary":
        part.rename(copy / "parts" / ".000003.parquet.4711.tmp")
    else:
        part.write_bytes(part.read_bytes()[:777])
    watch = Stop(float("inf"))
    outcome = run_study(plan, copy, progress=watch)
    assert outcome.rows == COMBINATIONS * len(TEXTS) // len(LENGTHS)
    assert (f"{part}: is damaged: its rows are made again" in watch.notes) == (torn == "part")
    assert Parts(copy / "parts").damaged == {}
    check_equal(copy, whole)


def test_all_parts_gone(plan: StudyPlan, whole: Path, copy: Path) -> None:
    shutil.rmtree(copy / "parts")
    assert sum(rows_there(plan, copy).values()) == 0
    assert run_study(plan, copy).rows == COMBINATIONS * len(TEXTS)
    check_equal(copy, whole)


def test_nothing_is_left_of_a_study_that_starts_over(plan: StudyPlan, copy: Path) -> None:
    assert sum(rows_there(plan, copy).values()) == COMBINATIONS * len(TEXTS)
    assert run_study(plan, copy, fresh=True).reused == 0
    assert len(list((copy / "parts").iterdir())) == len(LENGTHS)


def test_steps_are_asked_for_later(base: list[str], whole: Path, copy: Path) -> None:
    """Rows without steps are made again, and stand in place of those that were there."""
    outcome = run_study(plan_study([*base, "output.steps=true"]), copy)
    assert (outcome.reused, outcome.rows) == (0, COMBINATIONS * len(TEXTS))
    check_equal(copy, whole)
    steps, records = pd.read_csv(copy / "steps.csv"), pd.read_csv(copy / "records.csv")
    assert len(steps) == records["steps"].sum()
    keys = ["combination", "prompt_id"]
    summed = steps.groupby(keys)[["drafted_tokens", "accepted_tokens", "bonus_tokens"]].sum().sort_index()
    assert summed.equals(records.set_index(keys)[list(summed)].sort_index().loc[summed.index])
    assert (steps.groupby(keys)["step"].max() + 1).equals(records.set_index(keys)["steps"].sort_index())
    assert run_study(plan_study(base), copy).rows == 0


def test_the_table_of_all_rows_in_another_form(base: list[str], whole: Path, copy: Path) -> None:
    before = load_study(whole).records
    assert before is not None
    for form, files in (("parquet", {"records.parquet"}), ("none", set()), ("csv", {"records.csv"})):
        run_study(plan_study([*base, f"output.records={form}"]), copy)
        assert {path.name for path in copy.glob("records.*")} == files
        found = load_study(copy).records
        if form == "none":
            assert found is None
        else:
            pd.testing.assert_frame_equal(found, before, rtol=1e-5)
        for file in FILES[1:]:
            assert (copy / file).read_text() == (whole / file).read_text()
