"""A drafter that draws with temperatures of its own, through whole studies: the target's texts stay what they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.command_line import Run, one_line
from support.tiny_models import PairFolders

from specdraft.acceptance import Recursive
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.losslessness import enumeration
from specdraft.losslessness.live_texts import chi_square
from specdraft.results.study_tables import load_study
from specdraft.sampling.distribution import Sampling
from specdraft.study.combination import case_of
from specdraft.study.engines import replay
from specdraft.study.generate import SpeculativeDecoder
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study
from specdraft.traces import library as traces
from specdraft.traces.rule_records import record_rules

NEW = 8
ROWS = [
    {"question_id": "s1", "category": "qa", "turns": ["Once upon a time", "And then?"]},
    {"question_id": "s2", "category": "rag", "turns": ["It was late"]},
]
DRAWN = "sampling.draft_temperature=0.6,1,[1.0,0.5]"


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    models = [f"pair.target.path={tiny_pair_folders.target}", f"pair.draft.path={tiny_pair_folders.draft}"]
    prompts = ["prompts=spec-bench", f"prompts.path={folder / 'question.jsonl'}", f"max_new_tokens={NEW}"]
    small = {"chain": {"1-1": (2, enumeration.shape(1, 1))}, "k-ary": {"2-2": (2, enumeration.shape(2, 2))}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(folder / "traces"))
        patch.setattr(replay.ReplayEngine, "_costs", lambda *given: {})
        patch.setattr(enumeration, "FAMILIES", small)
        yield [*models, "pair.name=tiny", *prompts, "sampling.temperature=1", "report=false"]


def run(base: list[str], out: Path, *more: str) -> pd.DataFrame:
    assert run_study(plan_study([*base, *more]), out).failures == []
    return load_study(out).summary


@pytest.fixture(scope="module")
def study(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    run(base, out, DRAWN, "acceptance=rejection,recursive,traversal", "tree=chain,kary", "budget=3")
    return out


def test_a_key_column_says_it_in_every_table(study: Path) -> None:
    for name in ("records", "summary", "by_category", "positions", "nodes", "lengths", "siblings"):
        table = pd.read_csv(study / f"{name}.csv", dtype=str, keep_default_na=False)
        assert set(table["draft_temperature"]) == {"0.6", "", "1-0.5"}, name
    assert "draft_temperature" in pd.read_csv(study / "comparisons.csv")


def test_categories_and_ids_of_a_public_set_are_in_the_records(study: Path) -> None:
    records = pd.read_csv(study / "records.csv")
    assert set(map(tuple, records[["prompts", "prompt_id", "category"]].to_numpy())) == {
        ("spec-bench", "s1", "qa"),
        ("spec-bench", "s2", "rag"),
    }


def test_the_target_says_the_same_and_accepts_otherwise(study: Path) -> None:
    summary = load_study(study).summary
    assert summary["new_tokens"].nunique() == 1  # one recorded text for all
    for _, rows in summary[summary["tree"] == "chain"].groupby("acceptance"):
        by_drawn = rows.set_index("draft_temperature")
        assert by_drawn["accepted_tokens"].nunique() == 3
        assert by_drawn.loc["1-0.5", "alpha"] == by_drawn.loc["", "alpha"] != by_drawn.loc["0.6", "alpha"]
    first = load_study(study).positions
    first = first[(first["tree"] == "chain") & (first["depth"] == 1) & (first["acceptance"] == "rejection")]
    assert first["accepted"].nunique() == 3  # steps start elsewhere


def test_without_one_a_combination_has_the_name_that_it_had(base: list[str]) -> None:
    chain = ["acceptance=rejection", "tree=chain", "budget=3"]
    plain, same, other = (
        plan_study([*base, *chain, *more]).combinations[0].identifier
        for more in ([], ["sampling.draft_temperature=1"], ["sampling.draft_temperature=0.9"])
    )
    assert plain == same != other


def test_what_is_recorded_is_recorded_once(base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models read each text once for all temperatures, and only for those that were not asked for before."""
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    judged: list[list[str]] = []

    def judging(*given: Any) -> Any:
        judged.append([part.name for part in given[4]])
        return record_rules(*given)

    monkeypatch.setattr(traces, "record_rules", judging)
    chain = ["acceptance=rejection,traversal", "tree=chain", "budget=3"]
    run(base, tmp_path / "one", *chain, DRAWN)
    assert judged == [
        ["overlap", "overlap@0.6", "rejection@0.6", "rejection", "rejection@0.5", "traversal@0.6", "traversal",
         "traversal@1-0.5"]
    ]  # fmt: skip
    run(base, tmp_path / "two", *chain, "sampling.draft_temperature=0.6,0.5", "name=other")
    assert judged[1:] == [["overlap@0.5", "traversal@0.5"]]


@pytest.mark.parametrize("rule", ["recursive", "rejection"])
def test_live_texts_follow_the_targets_law(rule: str, base: list[str], tiny_pair: Pair) -> None:
    tree = "chain" if rule == "rejection" else "kary"
    drawn = ["sampling.draft_temperature=[2.0,0.3]", f"acceptance={rule}", f"tree={tree}", "budget=3", "engine=live"]
    case = case_of(plan_study([*base, *drawn]).combinations[0])
    test = chi_square(tiny_pair, case, "a", tiny_pair.encode("Once"), 300, 0)
    assert test.tested and test.p > 1e-3


def test_the_drafter_draws_colder_with_depth(tiny_pair: Pair) -> None:
    """At 0 a chain is the drafter's best tokens; the same seed draws others above it."""

    def steps(draft_temperature: Any) -> list[list[int]]:
        given = {"acceptance": Recursive(), "sampling": Sampling(1.0), "draft_temperature": draft_temperature}
        made = SpeculativeDecoder(tiny_pair, "kary", 6, NEW, **given).generate("Once")
        return [step.tree.token_list() for step in made.steps]

    greedy = steps([1.5, 0])
    assert all(tree[3] == tree[4] and tree[5] == tree[6] for tree in greedy)  # copies of the one best token
    assert any(tree[1] != tree[2] for tree in greedy)
    assert steps(1.0) == steps(None) != steps(1.2)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["sampling.temperature=0", "sampling.draft_temperature=0.5"], "=0.5 has no effect: sampling.temperature=0"),
        (["acceptance=topk", "sampling.draft_temperature=[1,0.5]"], "=[1,0.5] has no effect: acceptance=topk takes"),
        (["acceptance=rejection", "sampling.draft_temperature=cold"], "draft_temperature=cold is out of range"),
        (["drafter=ngram", "acceptance=topk", "sampling.draft_temperature=0.5"], "has no effect: acceptance=topk"),
    ],
)
def test_what_cannot_be_meant(more: list[str], words: str, base: list[str], run: Run, tmp_path: Path) -> None:
    own = [text for text in base if text.partition("=")[0] not in {one.partition("=")[0] for one in more}]
    said = run("sweep", *own, *more, "tree=chain", "budget=3", "--out", tmp_path / "out")
    assert words in one_line(said)
    assert not (tmp_path / "out").exists()


def test_what_fits_nothing_to_it_and_the_api_refuse_it_too(run: Run, base: list[str], tiny_pair: Pair) -> None:
    own = [text for text in base if not text.startswith("report")]
    said = run("fit", "temperature", *own, "sampling.draft_temperature=0.5")
    assert "has no effect in fit temperature" in one_line(said)
    with pytest.raises(ConfigError, match="has no effect: sampling\\.temperature=0"):
        SpeculativeDecoder(tiny_pair, "chain", 3, draft_temperature=0.5)


def test_decoded_live_each_temperature_is_a_row_of_its_own(base: list[str], tmp_path: Path) -> None:
    rule = ["acceptance=rejection", "tree=chain", "budget=3", "engine=live"]
    rows = run(base, tmp_path / "out", *rule, "sampling.draft_temperature=0,1,[1.0,3.0]").set_index("draft_temperature")
    assert set(rows.index) == {"0", "", "1-3"} and set(rows["engine"]) == {"live"}
    assert rows["accepted_tokens"].nunique() + rows["steps"].nunique() > 2


def test_names_of_combinations_are_those_of_before(base: list[str]) -> None:
    """The digest of a combination without a draft temperature does not know that there are any."""
    combination = plan_study([*base, "acceptance=rejection", "tree=chain", "budget=3"]).combinations[0]
    keys = {name: value for name, value in combination.keys.items() if name != "combination"}
    assert keys.pop("draft_temperature") == ""
    assert combination.digest(keys) == combination.identifier


def test_at_zero_a_chain_is_the_drafters_best_tokens(base: list[str], tmp_path: Path) -> None:
    """Point masses: the expected counts of `rejection` are the exact ones of `topk`, which come from draft ranks."""
    drawn = ["acceptance=rejection,recursive,topk", "tree=chain", "budget=3", "sampling.draft_temperature=0,1"]
    rows = run(base, tmp_path / "out", *drawn).query("tree == 'chain'").set_index(["acceptance", "draft_temperature"])
    counts = rows[["steps", "drafted_tokens", "accepted_tokens", "bonus_tokens"]]
    for rule in ("rejection", "recursive"):
        assert counts.loc[rule, "0"].to_list() == pytest.approx(counts.loc["topk", ""].to_list(), abs=1e-9)
        assert counts.loc[rule, ""].to_list() != pytest.approx(counts.loc["topk", ""].to_list(), abs=1e-3)
