"""T5 through a study, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from support.command_line import Run
from support.tiny_models import PairFolders
from support.tiny_t5 import ARCHITECTURES, save_t5_pair

from specdraft.acceptance import Recursive, Rejection, TopK
from specdraft.drafters import DrafterSpec
from specdraft.drafters.ngram import Ngram
from specdraft.drafters.pair import load_pair
from specdraft.drafters.suffix import Suffix
from specdraft.losslessness.live_texts import Case, check_live
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.sampling.distribution import Sampling
from specdraft.study.generate import SpeculativeDecoder
from specdraft.study.simulate import simulate
from specdraft.trees.shapes import registry

PROMPT = "It was a bright morning, and the sea was calm."
COUNTS = ["steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens"]


def overrides(folders: PairFolders) -> list[str]:
    pair = [f"pair.{role}.path={folder}" for role, folder in folders._asdict().items()]
    return [*pair, "pair.name=t5", "prompts.limit=2", "max_new_tokens=16", "cost.measure=off", "report=false"]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("drafter", [None, Ngram(), Suffix()], ids=["model", "ngram", "suffix"])
def test_text_is_that_of_generate(name: str, drafter: DrafterSpec | None, tmp_path: Path) -> None:
    pair = load_pair(save_t5_pair(tmp_path, name).spec(), drafter)
    trees = ["chain", "kary", "wide"] + (["best_first"] if drafter is None else [])
    for prompt in (PROMPT, "a a a a a", "x"):
        wanted = pair.target.generate(pair.encode(prompt), 20, pair.eos_ids)
        for tree in trees:
            result = SpeculativeDecoder(pair, tree, budget=5, max_new_tokens=20).generate(prompt)
            assert result.token_ids == wanted


def test_live_is_replay_to_the_integer(t5_pair_folders: PairFolders, tmp_path: Path, run: Run) -> None:
    kinds = [
        "drafter=model,ngram",
        "tree=chain,kary,best_first,expand_rerank,sequoia",
        "budget=5",
        "engine=live,replay",
    ]
    said = run("sweep", *overrides(t5_pair_folders), *kinds, "--out", tmp_path / "study")
    assert said.code == 0, said.err
    rows = pd.read_csv(tmp_path / "study" / "records.csv").set_index(["drafter", "tree", "budget", "prompt_id"])
    by_engine = [rows[rows["engine"] == engine][COUNTS].sort_index() for engine in ("live", "replay")]
    shared = by_engine[0].index.intersection(by_engine[1].index)
    assert len(shared) >= 2 * 7
    pd.testing.assert_frame_equal(*(each.loc[shared] for each in by_engine), check_dtype=False)
    assert by_engine[0]["accepted_tokens"].sum() >= 40


def test_sampled_text_follows_the_law(t5_pair_folders: PairFolders) -> None:
    pair, sampling = load_pair(t5_pair_folders.spec()), Sampling(1.0, top_k=8)
    asked = [("chain", Rejection()), ("kary", Recursive()), ("best_first", TopK())]
    cases = [Case.of(registry()[tree](), 4, rule, sampling, 6) for tree, rule in asked]
    checked = check_live(pair, cases, {"a": pair.encode(PROMPT)}, 100, 0, lambda what: None)
    assert all(one.passed and one.tested for one in checked), [one.verdict for one in checked]


@pytest.mark.slow
def test_replayed_sampling_expects_what_live_gives(t5_pair_folders: PairFolders, tmp_path: Path, run: Run) -> None:
    sampled = ["sampling=sample", "sampling.top_k=6", "acceptance=rejection,recursive", "tree=chain", "budget=3"]
    several = ["engine=live,replay", "repeats=25"]
    said = run("sweep", *overrides(t5_pair_folders), *sampled, *several, "--out", tmp_path / "study")
    assert said.code == 0, said.err
    rows = pd.read_csv(tmp_path / "study" / "records.csv")
    sums = rows.groupby(["acceptance", "engine"])[COUNTS].sum()
    length = sums["accepted_tokens"] / sums["steps"]
    for rule in ("rejection", "recursive"):
        assert length[rule, "live"] == pytest.approx(length[rule, "replay"], rel=0.15)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (["engine=live", "batch=2"], "batch=2 is for decoder-only models"),
        (["engine=live", "cache=static"], "cache=static is for decoder-only models"),
        (["engine=live", "cache=graph"], "cache=graph is for decoder-only models"),
        (["cost.measure=auto", "cost.batch=4"], "cost.batch=4 is for decoder-only models"),
        (["drafter=early_exit"], "drafter=early_exit drafts for decoder-only targets"),
        (["drafter=lookahead"], "drafter=lookahead drafts for decoder-only targets"),
    ],
)
def test_what_does_not_go_with_it(
    asked: list[str], reason: str, t5_pair_folders: PairFolders, tmp_path: Path, run: Run
) -> None:
    said = run("sweep", *overrides(t5_pair_folders), *asked, "tree=chain", "budget=3", "--out", tmp_path / "study")
    assert said.code == 2
    assert reason in said.err
    assert "Traceback" not in said.err


def test_the_prompt_may_be_longer_than_what_the_decoder_reads(t5_pair_folders: PairFolders) -> None:
    pair = load_pair(t5_pair_folders.spec())
    long = "abc " * 300
    result = SpeculativeDecoder(pair, "kary", budget=4, max_new_tokens=10).generate(long)
    assert result.token_ids == pair.target.generate(pair.encode(long), 10, pair.eos_ids)
    cut = SpeculativeDecoder(pair, "kary", budget=4, max_new_tokens=10, max_prompt_tokens=9).generate(long)
    assert cut.token_ids == pair.target.generate(pair.encode("bc abc "[-8:]), 10, pair.eos_ids)


@pytest.mark.parametrize("command", ["train medusa", "train draft", "train eagle", "train nano", "fit alignment"])
def test_what_learns_from_a_decoders_states(
    command: str, t5_pair_folders: PairFolders, tmp_path: Path, run: Run
) -> None:
    said = run(*command.split(), *overrides(t5_pair_folders)[:3], "--out", tmp_path / "out.safetensors")
    assert said.code == 2
    assert f"specdraft {command} learns from a decoder-only target's states; " in said.err
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("tree", ["chain", "best_first"])
def test_a_replayed_step_shows_what_the_models_say(t5_pair_folders: PairFolders, run: Run, tree: str) -> None:
    """The encoder reads the prompt alone, whatever was said before the step."""
    asked = [text for text in overrides(t5_pair_folders) if not text.startswith(("prompts.", "cost", "report"))]
    said = run("replay", "1", *asked, f"tree={tree}", "budget=3", "--json")
    assert said.code == 0, said.err
    shown, pair = json.loads(said.out), load_pair(t5_pair_folders.spec())
    prompt = next(p.text for p in load_prompts(PromptSpec()) if p.prompt_id == "1")
    ids, text, at = pair.encode(prompt), shown["token_ids"], 1
    assert len(shown["trees"]) > 2
    for step in shown["trees"]:
        nodes = step["nodes"]
        expected = pair.target.after(ids, text[:at]).softmax(-1)[nodes[1]["token"]]
        assert nodes[1]["target_prob"] == pytest.approx(float(expected), abs=1e-5)
        at += sum(node["state"] == "accepted" for node in nodes) + 1
    assert at >= len(text)


def test_simulated_trees_are_those_of_a_sweep(t5_pair_folders: PairFolders, tmp_path: Path, run: Run) -> None:
    said = run(
        "sweep", *overrides(t5_pair_folders), "tree=chain,kary", "budget=4", "--out", tmp_path / "study", "--json"
    )
    swept = {row["tree"]: row["steps"] for row in json.loads(said.out)["summary"]}
    prompts = [p.text for p in load_prompts(PromptSpec(limit=2))]
    found = simulate(t5_pair_folders.spec(), None, ["chain budget=4", "kary budget=4"], prompts, max_new_tokens=16)
    assert found["steps"].tolist() == [swept["chain"], swept["kary"]]
