"""A new rule that can be replayed is one file and one YAML."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.tiny_models import PairFolders
from support.written import rows_in

from specdraft import acceptance
from specdraft.config import kinds_in
from specdraft.results.metrics import COUNTS
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study

pytestmark = pytest.mark.usefixtures("few_rounds")

FILES = {
    "copied": '''
from dataclasses import dataclass

from specdraft.acceptance import Recursive


@dataclass
class Copied(Recursive):
    """As recursive rejection."""

    kind: str = "copied"
''',
    "first_only": '''
from dataclasses import dataclass
from typing import ClassVar

from specdraft.acceptance.base import Arrays, Replay
from specdraft.acceptance.judging import Judged, Judging, probability, ratio, rounds
from specdraft.acceptance.weights import node_weights
from specdraft.sampling.randomness import Draw


@dataclass
class FirstOnly(Judging):
    """Token-wise rejection of the first child; the others are never accepted."""

    kind: str = "first_only"
    draw: ClassVar[Draw] = "iid"
    needs_draft_probs: ClassVar[bool] = True
    replay: ClassVar[Replay] = "record"
    arrays: ClassVar[Arrays] = {"clipped": "position"}

    def judge(self, tree, target_probs, draft_probs):
        accept, rest = target_probs.new_zeros(len(tree)), target_probs.clone()
        for parents, children, tokens in list(rounds(tree, target_probs.device))[:1]:
            target, draft = target_probs[parents], draft_probs[parents]
            accept[children] = ratio(target.gather(-1, tokens), draft.gather(-1, tokens))[:, 0]
            rest[parents] = (target - draft).clamp(min=0)
        return Judged(accept, rest)

    def record(self, target_probs, draft_probs, tokens, count, source):
        return {"clipped": ratio(probability(draft_probs, tokens), probability(target_probs, tokens))}

    def weights(self, topology, record):
        return node_weights(topology, lambda rank, count: record["clipped"] * (rank == 0))
''',
}
NEW_TOKENS = 6


@pytest.fixture
def config_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The rules of `FILES` lie in the folder of rules, and each has its YAML here."""
    (tmp_path / "configs" / "acceptance").mkdir(parents=True)
    (tmp_path / "rules").mkdir()
    for kind, text in FILES.items():
        (tmp_path / "rules" / f"{kind}.py").write_text(text)
        (tmp_path / "configs" / "acceptance" / f"{kind}.yaml").write_text(f"kind: {kind}\n")
    monkeypatch.setattr(acceptance, "__path__", [*acceptance.__path__, str(tmp_path / "rules")])
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    kinds_in.cache_clear()
    yield tmp_path / "configs"
    kinds_in.cache_clear()
    for kind in FILES:
        sys.modules.pop(f"specdraft.acceptance.{kind}", None)
        vars(acceptance).pop(kind, None)


@pytest.fixture
def base(tiny_pair_folders: PairFolders, tmp_path: Path) -> list[str]:
    texts = ["Once upon a time", "It was late"]
    rows = [{"question_id": str(i), "category": "story", "prompt": text} for i, text in enumerate(texts)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    prompts = ["prompts=jsonl", f"prompts.path={tmp_path / 'prompts.jsonl'}", f"max_new_tokens={NEW_TOKENS}"]
    return [*pair, *prompts, "sampling=sample", "engine=replay", "report=false"]


def counts(base: list[str], config_dir: Path, out: Path, *overrides: str) -> dict[tuple[str, str], Any]:
    """Rule and tree -> the counts of every prompt."""
    plan = plan_study([*base, *overrides], config_dir)
    assert plan.skipped == []
    outcome = run_study(plan, out)
    assert outcome.failures == []
    which = {c.identifier: (c.rule.kind, c.shape.kind) for c in plan.combinations}
    found: dict[tuple[str, str], Any] = {key: [] for key in which.values()}
    for row in rows_in(out):
        names = [*COUNTS, "overlap"]
        found[which[row.combination]].append({name: getattr(row.tally, name) for name in names})
    return found


def test_a_copy_of_a_rule_has_its_counts(base: list[str], config_dir: Path, tmp_path: Path) -> None:
    found = counts(base, config_dir, tmp_path / "out", "acceptance=recursive,copied", "tree=kary", "budget=6")
    copied, recursive = found["copied", "kary"], found["recursive", "kary"]
    assert len(recursive) == 2
    assert copied == recursive
    assert any(prompt["accepted_tokens"] > 0 for prompt in copied)


def test_a_rule_with_arrays_and_weights_of_its_own(base: list[str], config_dir: Path, tmp_path: Path) -> None:
    """Where only first children are accepted, a tree is worth its leftmost chain."""
    tree = counts(base, config_dir, tmp_path / "tree", "acceptance=first_only", "tree=kary", "budget=6")
    chain = counts(base, config_dir, tmp_path / "chain", "acceptance=rejection", "tree=chain", "budget=2")
    for ours, theirs in zip(tree["first_only", "kary"], chain["rejection", "chain"], strict=True):
        for name in ("steps", "accepted_tokens", "bonus_tokens", "new_tokens", "overlap"):
            assert ours[name] == pytest.approx(theirs[name]), name
    lengths, nodes = (
        [
            by_column(tmp_path / out / f"{file}.csv", kind, column)
            for out, kind in (("tree", "kary"), ("chain", "chain"))
        ]
        for file, column in (("lengths", "acceptance_length"), ("nodes", "rank_path"))
    )
    pd.testing.assert_series_equal(lengths[0]["steps"], lengths[1]["steps"])
    both = ["reached", "accepted"]
    pd.testing.assert_frame_equal(nodes[0].loc[nodes[1].index, both], nodes[1][both])
    others = [path for path in nodes[0].index if set(path.split("/")) != {"0"}]
    assert len(others) == 4
    assert (nodes[0].loc[others, "accepted"] == 0).all()


def by_column(file: Path, tree: str, column: str) -> pd.DataFrame:
    """A detail table's lines of one tree."""
    table = pd.read_csv(file, dtype={"rank_path": str})
    return table[table["tree"] == tree].set_index(column)


def test_a_trace_says_which_arrays_it_has(base: list[str], config_dir: Path, tmp_path: Path) -> None:
    counts(base, config_dir, tmp_path / "out", "acceptance=copied", "tree=kary", "budget=6")
    abouts = [json.loads(path.read_text())["about"] for path in (tmp_path / "traces").glob("*.json")]
    arrays = [(about["of"], about["arrays"]) for about in abouts if about["kind"] == "rule_records"]
    assert sorted(arrays) == [("copied", ["copied.pi"])] * 2 + [("overlap", ["overlap"])] * 2  # of two prompts each
