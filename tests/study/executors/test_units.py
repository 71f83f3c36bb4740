"""A study's work as units: nothing is left out, nothing is there twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.engine_runs import study_of, work_of
from support.tiny_models import PairFolders

from specdraft.config import Settings
from specdraft.config.settings import ResourceSpec, TargetResources
from specdraft.errors import ConfigError
from specdraft.prompts import Prompt
from specdraft.study.engines.base import Work
from specdraft.study.executors.shares import share_of
from specdraft.study.executors.units import COSTS, RECORD, ROWS, Unit, phases, shards
from specdraft.study.plan import plan_study
from specdraft.study.refusals import refuse_beside_workers

TEXTS = [f"Once upon {n} times" for n in range(9)]
GRIDS = {
    "replay": ["tree=chain,kary,sequoia,best_first,best_first-calibrated", "budget=2,4,8"],
    "live": ["tree=chain,sequoia", "budget=2,4", "engine=live", "batch=1,4"],
    "sampled": [
        "tree=chain,kary",
        "budget=2,4",
        "sampling.temperature=1",
        "acceptance=rejection,recursive",
        "repeats=2",
        "engine=replay",
    ],
}


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*study_of(tiny_pair_folders, tmp_path_factory.mktemp("prompts"), TEXTS), "max_new_tokens=5"]


def rows_of(work: Work) -> Counter[tuple[str, int, str]]:
    return Counter((name, repeat, prompt) for (name, repeat), some in work.due.items() for prompt in some)


@pytest.mark.parametrize("workers", [1, 2, 3, 50])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_row_is_in_one_unit(base: list[str], grid: str, workers: int) -> None:
    engine = "live" if grid == "live" else "replay"
    work = work_of(plan_study([*base, *GRIDS[grid]]), engine)
    cut = phases(engine, work, workers)
    units = [unit for phase in cut for unit in phase.units]
    rows = [unit for unit in units if unit.kind == ROWS]
    assert sum((rows_of(unit.work) for unit in rows), Counter()) == rows_of(work)
    assert all(unit.engine == engine and unit.work.prompts == work.prompts for unit in rows)
    assert [phase.kind for phase in cut] == ([RECORD, ROWS] if engine == "live" else [RECORD, COSTS, ROWS])
    recorded = Counter(p.prompt_id for unit in units if unit.kind == RECORD for p in unit.work.prompts)
    assert recorded == Counter(prompt.prompt_id for prompt in work.prompts)
    if workers > 1:
        assert len([unit for unit in units if unit.kind == RECORD]) >= min(workers, len(TEXTS))
        assert len(rows) > 1


def test_a_unit_has_all_that_its_traces_are_named_by(base: list[str]) -> None:
    """How many children rules keep, and which tree, is told by all static trees of a text."""
    work = work_of(plan_study([*base, *GRIDS["sampled"]]), "replay")
    for unit in phases("replay", work, 2)[-1].units:
        assert {c.identifier for c in unit.work.combinations} == {c.identifier for c in work.combinations}


def test_what_is_measured_of_scores_is_so_once(base: list[str]) -> None:
    work = work_of(plan_study([*base, *GRIDS["replay"]]), "replay")
    rows = phases("replay", work, 4)[-1].units
    dynamic = [u for u in rows if any(c.together.dynamic for c in u.work.combinations)]
    assert len(dynamic) == 1 and len(rows) > 4


@pytest.mark.parametrize("workers", [1, 2, 50])
def test_budgets_of_one_shape_stay_together(base: list[str], workers: int) -> None:
    """They share their work, and a unit of every second one would do it again."""
    work = work_of(plan_study([*base, "tree=chain,kary,wide", "budget=range(2,8)", "cost.measure=off"]), "replay")
    shapes = {one.identifier: one.shape.label for one in work.combinations}
    (_, cut) = phases("replay", work, workers)
    parts = [{shapes[name] for name, _ in unit.work.due} for unit in cut.units]
    assert len(parts) == min(4 * workers, len(shapes))
    assert sum(map(len, parts)) <= len(set(shapes.values())) + len(parts) - 1


def test_turns_of_one_prompt_stay_together() -> None:
    prompts = [Prompt(f"{n}{turn}", "all", "x") for n in range(7) for turn in ("", "@turn2", "@turn3")]
    groups = shards(prompts, 3)
    everyone = [p.prompt_id for some in groups for p in some]
    assert len(groups) == 3 and sorted(everyone) == sorted(p.prompt_id for p in prompts)
    for some in groups:
        assert set(Counter(p.prompt_id.partition("@")[0] for p in some).values()) == {3}


def test_many_prompts_are_many_units_whatever_the_workers() -> None:
    prompts = [Prompt(str(n), "all", "x") for n in range(100)]
    assert [len(some) for some in shards(prompts, 2)] == [15, 15, 14, 14, 14, 14, 14]
    assert len(shards(prompts[:3], 8)) == 3


def test_what_is_done_of_a_unit_is_not_left(base: list[str]) -> None:
    work = work_of(plan_study([*base, *GRIDS["replay"]]), "replay")
    unit = Unit(ROWS, "replay", work)
    some = next(iter(work.due))
    left = unit.without({some: frozenset(list(work.due[some])[:4])})
    assert unit.amount - left.amount == 4
    assert some not in unit.without({some: work.due[some]}).work.due


def test_workers_share_the_graphics_cards_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specdraft.study.executors.shares._cards", lambda: 4)
    asked = Settings(executor="processes", resources=ResourceSpec(workers=2, gpus=2))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert share_of(asked).devices == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,GPU-a,5,2")
    assert share_of(asked).devices == ["7,GPU-a", "5,2"]
    with pytest.raises(ConfigError, match=r"resources\.gpus=2 for 3 workers: this machine has 4 graphics cards"):
        share_of(Settings(executor="processes", resources=ResourceSpec(workers=3, gpus=2)))
    of_target = ResourceSpec(target=TargetResources(2))
    assert share_of(Settings(executor="processes", resources=of_target)).devices == ["7,GPU-a", "5,2"]
    with pytest.raises(
        ConfigError, match=r"resources\.target\.gpus=2 for 3 workers: this machine has 4 graphics cards"
    ):
        share_of(Settings(executor="processes", resources=replace(of_target, workers=3)))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["executor=proceses"], "executor='proceses' is not known; did you mean 'processes'?"),
        (["resources.workers=2"], "resources.workers=2 has no effect with executor=local"),
        (["executor=processes", "resources.workers=0"], "resources.workers=0 is out of range; expected 1 or more"),
        (["executor=processes", "resources.address=auto"], "resources.address=auto has no effect without executor=ray"),
        (["executor=local,processes"], "executor cannot be swept"),
        (["resources.target.gpus=0"], "resources.target.gpus=0 is out of range; expected 1 or more"),
        (
            ["executor=processes", "resources.gpus=1", "resources.target.gpus=2"],
            "resources.target.gpus=2 does not go with resources.gpus=1, the graphics cards of a whole worker",
        ),
        (["resources.target.gpus=2"], "resources.target.gpus=2 does not go with pair.target.device=cpu"),
        (
            ["pair.target.device=spread:0"],
            "pair.target.device='spread:0' is not a device; expected spread, or spread:N",
        ),
        (["pair.target.device=spread:9"], "a model over 9 graphics cards"),
    ],
)
def test_what_does_not_go_with_workers(base: list[str], asked: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        plan_study([*base, "tree=chain", "budget=2", *asked])
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (SimpleNamespace(served=False, device="cuda:1"), "gives each worker its own graphics cards, and device=cuda:1"),
        (SimpleNamespace(served=True, device="auto"), "executor=ray does not go with pair.target.server"),
    ],
)
def test_models_that_workers_cannot_have(model: Any, said: str) -> None:
    files = SimpleNamespace(spec=model)
    pair: Any = SimpleNamespace(target=files, models=[files])
    combinations: Any = [SimpleNamespace(pair=pair)]
    with pytest.raises(ConfigError) as raised:
        refuse_beside_workers(Settings(executor="ray"), combinations)
    assert said in str(raised.value)
    refuse_beside_workers(Settings(), combinations)
