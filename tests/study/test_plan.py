from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from support.tiny_models import PairFolders

from specdraft.drafters.pair import PairFiles
from specdraft.errors import ConfigError, ModelError, PromptError
from specdraft.study.combination import encode_prompts, short_name
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.points import shape_of


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": "word " * n}) + "\n" for n in (1, 3)))
    models = [f"pair.{role}.path={folder}" for role, folder in zip(("target", "draft"), tiny_pair_folders, strict=True)]
    return [*models, "prompts=jsonl", f"prompts.path={path}", "max_new_tokens=10", "engine=live"]


def identifiers(plan: StudyPlan) -> list[str]:
    return [c.identifier for c in plan.combinations]


def keys(plan: StudyPlan, *names: str) -> list[tuple[object, ...]]:
    return [tuple(c.keys[name] for name in names) for c in plan.combinations]


def test_keys(base: list[str]) -> None:
    plan = plan_study([*base, "tree=chain,beam", "tree.kind=beam", "tree.width=3", "budget=4"])
    assert keys(plan, "pair", "target", "draft", "tree", "budget", "nodes", "depth") == [
        ("target+draft", "target", "draft", "beam-w3", 4, 4, 2)
    ]
    assert keys(plan, "dtype", "acceptance", "temperature", "max_new_tokens", "prompts", "seed", "engine") == [
        ("float32", "greedy", 0.0, 10, "prompts.jsonl", 0, "live")
    ]
    assert all(len(name) == 12 and set(name) <= set("0123456789abcdef") for name in identifiers(plan))


def test_a_pair_set_by_hand_is_called_by_its_folders(base: list[str]) -> None:
    assert keys(plan_study([*base, "tree=chain", "budget=2"]), "pair") == [("target+draft",)]
    assert keys(plan_study([*base, "tree=chain", "budget=2", "pair.name=mine"]), "pair") == [("mine",)]


def test_pairs_of_one_name(base: list[str], tmp_path: Path) -> None:
    target, draft = (text.partition("=")[2] for text in base[:2])
    both = keys(plan_study([*base, f"pair.draft.path={target},{draft}", "tree=chain", "budget=2"]), "pair", "draft")
    assert both == [("target+target", "target"), ("target+draft", "draft")]
    copies = [tmp_path / "here/draft", tmp_path / "there/draft"]
    for copy in copies:
        shutil.copytree(draft, copy)
    swept = [*base, f"pair.draft.path={copies[0]},{copies[1]}", "tree=chain", "budget=2"]
    plan = plan_study(swept)
    first, second = plan.combinations
    assert (first.keys["pair"], first.pair.label) == ("target+draft", "target+draft")
    parent = Path(target).parent.name
    assert (second.keys["pair"], second.pair.label) == (f"{parent}/target+there/draft",) * 2
    assert identifiers(plan_study(list(second.overrides))) == [second.identifier]
    with pytest.raises(ConfigError, match="two different pairs are called 'mine' and look alike"):
        plan_study([*swept, "pair.name=mine"])


def test_a_reference_without_room_is_left_out(base: list[str], tmp_path: Path) -> None:
    """A chain as long as a wide tree's budget does not fit the context; the wide tree does."""
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "x" * 270}) + "\n")
    longer = [*base, "engine=replay", f"prompts.path={tmp_path / 'long.jsonl'}", "budget=4,250"]
    plan = plan_study([*longer, "tree=wide"])
    trees = {(str(tree), budget) for tree, budget in keys(plan, "tree", "budget")}
    assert {("wide", 4), ("chain", 4), ("wide", 250)} <= trees and ("chain", 250) not in trees
    (note,) = [note for note in plan.notes if "tree=chain" in note]
    assert note == (
        "the reference tree=chain budget=250 is left out: with its 250 levels prompts do not fit the context of 512"
    )
    with pytest.raises(PromptError, match="250 draft levels"):
        plan_study([*longer, "tree=chain"])


def test_every_combination_can_be_said_again(base: list[str]) -> None:
    for combination in plan_study([*base, "tree=chain,kary,medusa", "budget=2,4", "max_new_tokens=3,5"]).combinations:
        assert identifiers(plan_study(list(combination.overrides))) == [combination.identifier]


def test_identifier_depends_on_what_decides_the_numbers(base: list[str]) -> None:
    one = [*base, "tree=kary", "budget=4"]
    (same,) = identifiers(plan_study(one))
    for change in ("output.steps=true", "pair.target.device=cpu", "tree.k=2", "repeats=2", "pair.target.dtype=float32"):
        assert identifiers(plan_study([*one, change])) == [same], change
    for change in (
        "tree.k=3",
        "budget=5",
        "max_new_tokens=9",
        "seed=1",
        "max_prompt_tokens=4",
        "pair.target.dtype=bfloat16",
        "pair.name=x",
        "prompts.chat_template=none",
        "sampling.top_k=7",
        "pair.draft.dtype=bfloat16",
    ):
        assert identifiers(plan_study([*one, change])) != [same], change


def test_trees_with_a_size_of_their_own_run_once(base: list[str]) -> None:
    plan = plan_study([*base, "tree=medusa,eagle,chain", "budget=4,8"])
    assert sorted(keys(plan, "tree", "budget", "nodes")) == [
        ("chain", 4, 4),
        ("chain", 8, 8),
        ("eagle", 25, 25),
        ("medusa", 63, 63),
    ]
    assert [reason.partition(" has")[0] for _, reason in plan.skipped] == ["medusa", "eagle"]
    with pytest.raises(ConfigError, match="budget=0"):
        plan_study([*base, "tree=medusa", "budget=0"])


def test_a_level_wider_than_the_vocabulary(base: list[str]) -> None:
    plan = plan_study([*base, "tree=wide", "budget=258,259"])
    assert keys(plan, "budget") == [(258,)]
    assert plan.skipped[0][1] == "wide needs 259 different children of one node; the vocabulary has 258 tokens"
    with pytest.raises(ConfigError, match=r"no combination is left to run.*kary-k1000 needs 300 different children"):
        plan_study([*base, "tree=kary", "tree.k=1000", "budget=300"])


def test_a_fitted_tree_wider_than_the_vocabulary(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = [*base[:-1], "engine=replay", "tree=measured,sequoia", "budget=4"]
    plan = plan_study([*fitted, "tree.max_children=258,259"])
    assert sorted(keys(plan, "tree")) == [("chain",), ("hindsight",), ("measured-mc258",), ("sequoia-mc258",)]
    reason = "may have 259 children of one node; the vocabulary has 258 tokens: lower tree.max_children"
    assert [why for _, why in plan.skipped] == [f"measured-mc259 {reason}", f"sequoia-mc259 {reason}"]
    monkeypatch.setattr(PairFiles, "shared_ids", 12)
    monkeypatch.setattr("specdraft.study.plan.encode_once", lambda *given: {})
    narrow = plan_study([*fitted, "tree.max_children=12,13"])
    assert sorted(keys(narrow, "tree")) == [("chain",), ("measured-mc12",), ("sequoia-mc12",)]


@pytest.mark.parametrize(
    ("sweep", "word"),
    [
        ("seed=1,2", "seed"),
        ("name=a,b", "name"),
        ("repeats=1,2", "repeats"),
        ("max_prompt_tokens=4,8", "max_prompt_tokens"),
        ("output.steps=true,false", "output"),
        ("prompts.limit=1,2", "prompts"),
    ],
)
def test_what_a_study_has_one_of(base: list[str], sweep: str, word: str) -> None:
    with pytest.raises(ConfigError, match=f"^{word} cannot be swept"):
        plan_study([*base, "tree=chain", "budget=2", sweep])


@pytest.mark.parametrize("budget", ["0", "-3", "5000"])
@pytest.mark.parametrize("tree", ["chain", "medusa"])
def test_bad_budgets(base: list[str], budget: str, tree: str) -> None:
    with pytest.raises(ConfigError, match=f"budget={budget} "):
        plan_study([*base, f"tree={tree}", f"budget=2,{budget}"])


def test_prompts_must_fit_the_context(base: list[str], tmp_path: Path) -> None:
    (tmp_path / "long").write_text(
        json.dumps({"prompt": "x" * 499, "question_id": "long"})
    )  # 500 tokens with <s>; the context has 512
    own = [*base, f"prompts.path={tmp_path / 'long'}", "tree=chain"]
    assert plan_study([*own, "budget=2"]).combinations
    with pytest.raises(
        PromptError,
        match=r"'long': 500 tokens \+ max_new_tokens=10 \+ 3 .* context of 512 .*max_prompt_tokens=499 would",
    ):
        plan_study([*own, "budget=2,3"])
    plan = plan_study([*own, "budget=2,3", "max_prompt_tokens=499"])
    ids = encode_prompts(plan.combinations[0].pair, plan.prompts, plan.combinations)["long"]
    assert ids == plan.combinations[0].pair.encode("x" * 498)  # the text is cut, the <s> before it stays
    assert [(note.kind, note.prompts, note.pair) for note in plan.prompt_notes] == [("cut", 1, "target+draft")]


def test_pairs_with_one_target_are_side_by_side(base: list[str], tiny_pair_folders: PairFolders) -> None:
    plan = plan_study([*base, "pair.name=a,b", "tree=chain", "budget=2"])
    assert len({id(c.pair.target) for c in plan.combinations}) == 1
    assert [files.spec.name for files in plan.by_pair()] == ["a", "b"]


def test_models_are_checked(base: list[str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"pair\.target\.path=.*nowhere: no such folder"):
        plan_study([*base, f"pair.target.path={tmp_path / 'nowhere'}"])


def test_shape_of() -> None:
    shape, budget = shape_of(["tree=beam", "tree.width=3"])
    assert (shape.label, budget) == ("beam-w3", 8)
    assert shape_of(["tree=beam", "budget=5"])[1] == 5
    with pytest.raises(ConfigError, match="one tree at a time; the overrides make 2"):
        shape_of(["tree=beam,chain"])


def test_equal_trees_are_run_once_in_whatever_order_their_nodes_are_listed(base: list[str]) -> None:
    two = [*base, "tree=wide,paths", "tree.paths=[[1],[0]]", "budget=2"]
    run_keys = {
        how: {c.run_key for c in plan_study([*two, *overrides]).combinations}
        for how, overrides in {"greedy": [], "drawn": ["sampling=sample", "acceptance=recursive"]}.items()
    }
    assert {how: len(found) for how, found in run_keys.items()} == {"greedy": 1, "drawn": 1}


@pytest.mark.parametrize(
    ("digest", "name"),
    [
        ("09af09874123a567", "09af09874123"),
        ("409887841234a567", "09887841234a"),
        ("12345e678901234a", "5e678901234a"),
        ("e12345678901a234", "e12345678901"),
    ],
)
def test_no_reader_takes_a_combination_for_a_number(digest: str, name: str) -> None:
    assert short_name(digest.ljust(64, "0")) == name
    assert pd.read_csv(StringIO(f"combination\n{name}\n"))["combination"].tolist() == [name]


def test_a_drafter_without_weights_is_left_out_of_a_grid(tiny_pair_folders: PairFolders) -> None:
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    plan = plan_study([*pair, "drafter=medusa,model", "tree=chain", "budget=2,3", "max_prompt_tokens=99"])
    assert {c.pair.drafter.kind for c in plan.combinations} == {"model"}
    why = "drafter.path is empty; drafter=medusa needs weights (heads of pair target+draft: none)"
    assert [reason for _, reason in plan.skipped] == [why, why]
    with pytest.raises(ConfigError, match="drafter=medusa needs weights"):
        plan_study([*pair, "drafter=medusa", "tree=chain", "max_prompt_tokens=99"])


def test_a_target_set_by_hand_has_its_own_heads(tiny_pair_folders: PairFolders) -> None:
    """Those of the bundled pair, which nobody named, are not its."""
    target, small = f"pair.target.path={tiny_pair_folders.target}", ["max_prompt_tokens=99", "tree=chain", "budget=2"]
    with pytest.raises(ConfigError, match=r"drafter=medusa needs weights \(heads of pair"):
        plan_study([target, "drafter=medusa", *small])
    for named in (["pair=zoo", target], [target, "pair.heads.medusa=zoo:medusa"]):
        with pytest.raises(ConfigError, match="heads of this target have 32 x 32"):
            plan_study([*named, "drafter=medusa", *small])
