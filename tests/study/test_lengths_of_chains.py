"""The length of chains as an axis of a study: columns, both engines, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from support.asked import prompts_of, tiny_pair_of
from support.command_line import Run
from support.tiny_models import PairFolders

from specdraft.errors import ConfigError
from specdraft.results.study_tables import read_records, read_table
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study

POLICIES = "constant,hf_heuristic,hf_confidence,sglang_adaptive,vllm_table,svip"
GRID = ["tree=chain", "budget=8", f"length={POLICIES}", "length.adapt=true"]
OFF = {"replay": ["cost.measure=off"], "live": []}
KEYS = ["length", "prompt_id"]
COUNTS = ["nodes", "steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens"]


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    prompts = prompts_of(tmp_path_factory.mktemp("prompts"))
    return [*tiny_pair_of(tiny_pair_folders), *prompts, "report=false", "max_new_tokens=12"]


@pytest.fixture(scope="module", autouse=True)
def _traces(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.mktemp("traces")))
        yield


def records(overrides: list[str], out: Path) -> pd.DataFrame:
    done = run_study(plan_study(overrides), out)
    assert not done.failures
    table = read_records(done.out)
    return table[table["tree"] == "chain"].astype(dict.fromkeys(KEYS, str)).set_index(KEYS).sort_index()


@pytest.fixture(scope="module")
def both(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    return {
        engine: records([*base, *GRID, f"engine={engine}", *OFF[engine]], tmp_path_factory.mktemp(engine) / "study")
        for engine in OFF
    }


def test_live_is_replay_to_the_integer(both: dict[str, pd.DataFrame]) -> None:
    replayed, live = (table[COUNTS] for table in both.values())
    assert len(live) == 6 * 4
    pd.testing.assert_frame_equal(replayed, live)


def test_the_columns(both: dict[str, pd.DataFrame]) -> None:
    replayed = both["replay"].reset_index()
    assert [*replayed["length"].unique()] == [
        "constant", "hf_confidence-adapt", "hf_heuristic", "sglang_adaptive", "svip", "vllm_table",
    ]  # fmt: skip
    assert dict(zip(replayed["length"], replayed["nodes"], strict=True))["vllm_table"] == 5
    constant = replayed[replayed["length"] == "constant"]
    assert (constant["drafted_tokens"] == 8 * constant["steps"]).all()


def test_a_constant_is_the_chain_of_its_length(base: list[str], tmp_path: Path) -> None:
    """Also sampled, where replay has expected values."""
    for sampling in ([], ["sampling=sample", "acceptance=rejection"]):
        asked = [*base, "tree=chain", *sampling, *OFF["replay"]]
        sized = records([*asked, "budget=8", "length=constant", "length.k=3"], tmp_path / f"sized{len(sampling)}")
        plain = records([*asked, "budget=3"], tmp_path / f"plain{len(sampling)}")
        assert {name for name, _ in sized.index} == {"constant-k3"}
        counts = [table.droplevel("length")[COUNTS] for table in (sized, plain)]
        pd.testing.assert_frame_equal(*counts)


def test_a_study_without_lengths_is_what_it_was(base: list[str]) -> None:
    plain, said, other = (
        plan_study([*base, "tree=chain", "budget=4", *more]).combinations[0]
        for more in ([], ["length=constant"], ["length=hf_heuristic"])
    )
    assert plain.identifier == said.identifier != other.identifier
    assert plain.keys["length"] == "constant"


def test_sampled_rejection_is_decoded_live(base: list[str], tmp_path: Path) -> None:
    drawn = ["sampling=sample", "acceptance=rejection", "length=hf_heuristic,hf_confidence,svip,sglang_adaptive"]
    own = [
        "length.threshold=0.05",
        "length.candidate_steps=[0,1,2]",
        "length.warmup=0",
        "length.update_interval=1",
    ]
    plan = plan_study([*base, "tree=chain", "budget=4", *drawn, *own])
    assert [c.engine for c in plan.combinations] == ["live"] * 4
    done = run_study(plan, tmp_path / "study")
    assert not done.failures and len(read_records(done.out)) == 4 * 4
    sizes = read_table(done.out / "sizes.csv").groupby("length")["drafted_tokens"]
    assert (sizes.nunique().drop("svip-t0.05") > 1).all() and sizes.min()["sglang_adaptive-cs0x1x2-ui1-w0"] == 0


def test_the_oracle_is_replayed(base: list[str], tmp_path: Path) -> None:
    table = records([*base, "tree=chain", "budget=4", "length=oracle", *OFF["replay"]], tmp_path / "study")
    assert (table["drafted_tokens"] == table["accepted_tokens"]).all()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["length=hf_confidence", "length.threshold=2"], "length.threshold=2.0 is out of range; expected 0 to 1"),
        (["length=hf_heuristic", "tree=kary"], "length=hf_heuristic sizes chains; tree=kary is none"),
        (["length=constant", "length.k=3", "tree=kary"], "length=constant sizes chains; tree=kary is none"),
        (["length=vllm_table", "length.table=[[2,8,3]]"], "expected a first row that begins at a batch of 1"),
        (["length=vllm_table", "length.table=[[1,8,0]]"], "length.table drafts nothing at a batch of 1"),
        (["length=hf_heuristics"], "length=hf_heuristics: there is no such length; did you mean 'hf_heuristic'"),
        (["length=constant", "length.k=9"], "length.k=9 is more than budget=8"),
        (["length=sglang_adaptive", "budget=4"], "length.candidate_steps has 7; budget=4 is the most"),
        (["length=svip", "pruning=ratio"], "length=svip and pruning=ratio both say what is sent"),
        (["length=oracle", "engine=live"], "length=oracle knows what will be accepted, as only a recorded text does"),
        (["length=goodput", "cost.measure=off"], "length=goodput weighs measured costs, and cost.measure=off"),
        (["length=hf_confidence", "drafter=ngram"], "length=hf_confidence looks at probabilities, and drafter=ngram"),
        (["length=goodput", "drafter=ngram"], "length=goodput can draft nothing in a step, and drafter=ngram drafts"),
        (
            ["length=hf_heuristic", "drafter=ngram", "engine=replay"],
            "with length=hf_heuristic drafter=ngram looks up chains of another length in every step",
        ),
        (
            ["length=hf_heuristic", "sampling=sample", "acceptance=rejection", "engine=replay"],
            "acceptance=rejection has expected values only; it needs engine=live or engine=auto",
        ),
    ],
)
def test_what_cannot_be(base: list[str], overrides: list[str], line: str) -> None:
    given = [*base, *(o for o in ("tree=chain", "budget=8") if o.split("=")[0] not in " ".join(overrides)), *overrides]
    with pytest.raises(ConfigError, match=line.replace("[", r"\[")):
        plan_study(given)


def test_bad_input_is_one_line_and_exit_code_2(run: Run, base: list[str], tmp_path: Path) -> None:
    said = run("sweep", *base, "tree=kary", "length=svip", "--out", tmp_path / "study")
    assert said.code == 2 and "length=svip sizes chains" in said.err and "Traceback" not in said.err
    assert not (tmp_path / "study").exists()


def test_generate_shows_chains_as_they_are_sized(run: Run, base: list[str]) -> None:
    pair = [o for o in base if o.startswith("pair.")]
    for length in ("hf_heuristic", "hf_confidence"):
        said = run("generate", "It was", *pair, "budget=6", f"length={length}", "max_new_tokens=12", "--json")
        assert said.code == 0, said.err
        assert len({len(tree["nodes"]) for tree in json.loads(said.out)["trees"]}) > 1


def test_replayed_prompts_say_where_sized_chains_are_shown(run: Run, base: list[str]) -> None:
    said = run("replay", "a", *[o for o in base if o != "report=false"], "length=svip")
    assert said.code == 2 and "specdraft generate shows them as they are decoded" in said.err
