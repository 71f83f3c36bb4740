"""A drafter that may propose less than the tree has room for, shown live and from traces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import Run
from support.tiny_models import PairFolders

from specdraft.commands.options import DONE

COUNTS = ("steps", "new_tokens", "acceptance_rate", "acceptance_length", "token_ids")


@pytest.mark.parametrize("tree", ["chain", "kary"])
def test_live_and_replayed_are_alike(
    tree: str, run: Run, tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    text = "one two one two one two one"
    (tmp_path / "p.jsonl").write_text(json.dumps({"question_id": "a", "prompt": text}) + "\n")
    given = [f"pair.target.path={tiny_pair_folders.target}", "drafter=ngram", f"tree={tree}", "budget=4"]
    given += ["max_new_tokens=24", "--json"]
    live = run("generate", text, *given)
    replayed = run("replay", "a", *given, "prompts=jsonl", f"prompts.path={tmp_path / 'p.jsonl'}")
    assert (live.code, replayed.code) == (DONE, DONE)
    first, second = json.loads(live.out), json.loads(replayed.out)
    assert [first[name] for name in COUNTS] == [second[name] for name in COUNTS]
    assert 0 < first["steps"] < 24


def test_a_step_without_a_proposal(
    run: Run, tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    said = run("generate", "x", f"pair.target.path={tiny_pair_folders.target}", "drafter=ngram", "max_new_tokens=6")
    assert said.code == DONE
    assert "0 of 0 levels accepted" in said.out
    assert "nothing was drafted below" in " ".join(said.out.split())


def test_what_does_not_go_with_it_is_one_line(run: Run, tiny_pair_folders: PairFolders) -> None:
    target = f"pair.target.path={tiny_pair_folders.target}"
    for overrides, reason in (
        (["tree=best_first"], "chooses nodes by their probability, and drafter=ngram gives none"),
        (["tree=chain", "budget=11"], "drafter=ngram makes at most 10"),
        (["acceptance=recursive", "sampling.temperature=1"], "drafter=ngram only ranks them"),
        (["drafter.path=here"], "drafter=ngram has no weights"),
        (["drafter.max_matching_ngram_size=0"], "out of range"),
        (["drafter.variant=vlm"], "did you mean 'vllm'"),
        (["drafter.prompt_lookup_min=3"], "at most drafter.max_matching_ngram_size, 2"),
        (["drafter.variant=trie", "tree=best_first", "tree.candidate_top_p=0.5"], "goes by counts"),
        (["drafter.variant=trie", "tree=best_first", "tree.max_depth=11", "budget=16"], "makes at most 10"),
        (["drafter.variant=trie", "pruning=ratio"], "looks at probabilities"),
    ):
        said = run("generate", "x", target, "drafter=ngram", *overrides)
        assert said.code == 2, overrides
        assert reason in said.err
        assert said.err.count("\n") == 1
