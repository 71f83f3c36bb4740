"""Live rows from every kind of cache: the same counts, under a key of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.command_line import Run
from support.engine_runs import study_of, untimed_rows, work_of
from support.tiny_models import PairFolders

from specdraft.drafters.pair import load_pair
from specdraft.models import self_check
from specdraft.models.cached_model import CachedModel
from specdraft.models.static_model import StaticModel
from specdraft.study.engines.base import Failed
from specdraft.study.engines.live import LiveEngine
from specdraft.study.plan import plan_study
from specdraft.traces.store import TraceStore

TEXTS = ("Once upon a time", "It was late", "def f(x):")
TREES = ["tree=kary,best_first", "budget=3"]


@pytest.fixture
def base(tiny_pair_folders: PairFolders, tmp_path: Path) -> list[str]:
    return [*study_of(tiny_pair_folders, tmp_path, TEXTS), "max_new_tokens=8", "engine=live", "report=false"]


@pytest.mark.parametrize("asked", [[], ["acceptance=recursive", "tree=kary", "sampling.temperature=1.0"]])
def test_counts_do_not_depend_on_the_cache(base: list[str], tmp_path: Path, asked: list[str]) -> None:
    work = work_of(plan_study([*base, *TREES, *asked, "cache=dynamic,static"]), "live")
    pair, named = load_pair(work.combinations[0].pair), {one.identifier: one for one in work.combinations}
    found: dict[str, list[Any]] = {"dynamic": [], "static": []}
    for row in untimed_rows([*LiveEngine(TraceStore(tmp_path)).run(work, pair)]):
        combination = named[row.pop("row")]
        found[combination.cache].append(row | {"tree": combination.keys["tree"]})
    assert len(found["static"]) == len(work.combinations) // 2 * len(TEXTS)
    assert sorted(found["static"], key=repr) == sorted(found["dynamic"], key=repr)


def test_names_of_what_keeps_the_usual_cache_are_as_they_were(base: list[str]) -> None:
    plain, auto, dynamic, static = (
        plan_study([*base, "tree=kary", "budget=3", *more]).combinations[0].identifier
        for more in ([], ["cache=auto"], ["cache=dynamic"], ["cache=static"])
    )
    assert plain == auto == dynamic != static


def test_a_cache_that_is_refused_fails_its_combinations_alone(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = self_check.tree_error

    def wrong(model: CachedModel) -> float:
        return 1.0 if isinstance(model, StaticModel) else right(model)

    monkeypatch.setattr(self_check, "tree_error", wrong)
    work = work_of(plan_study([*base, "tree=kary", "budget=3", "cache=dynamic,static"]), "live")
    events = [*LiveEngine(TraceStore(tmp_path)).run(work, load_pair(work.combinations[0].pair))]
    failed = [event for event in events if isinstance(event, Failed)]
    assert len(failed) == 1 and "cache=static changes what the model says" in failed[0].error
    assert len(untimed_rows(events)) == len(TEXTS)


def test_tables_say_which_cache(run: Run, base: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("sweep", *base, "tree=chain", "budget=2", "cache=dynamic,static", "--out", str(out)).code == 0
    rows = pd.read_csv(out / "summary.csv")
    assert rows["cache"].tolist() == ["dynamic", "static"]
    assert rows["accepted_tokens"].nunique() == 1 and (rows["speedup"] > 0).all()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["cache=fixed"], "cache='fixed' is not known (known: auto, dynamic, graph, static)"),
        (["cache=static", "batch=2"], "batch=2 has slots of its own for each text; expected cache=auto or"),
        (["cache=static", "engine=replay"], "cache=static is for engine=live: what is counted in replay does not"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(run: Run, base: list[str], asked: list[str], said: str) -> None:
    refused = run("sweep", *base, "tree=chain", "budget=2", *asked, "--dry-run")
    assert refused.code == 2 and said in refused.err and "Traceback" not in refused.err


def test_single_prompts_are_decoded_with_any_cache(run: Run, tiny_pair_folders: PairFolders) -> None:
    models = [f"pair.target.path={tiny_pair_folders.target}", f"pair.draft.path={tiny_pair_folders.draft}"]
    said = [json.loads(run("generate", "Once", *models, f"cache={c}", "--json").out) for c in ("dynamic", "static")]
    one, two = ([of[name] for name in ("token_ids", "steps", "acceptance_rate")] for of in said)
    assert one == two
