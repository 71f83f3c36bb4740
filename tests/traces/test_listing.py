from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from support.command_line import Run
from support.tiny_models import PairFolders

from specdraft.sampling.distribution import Sampling
from specdraft.traces.listing import Whose, describe_traces, group_traces, sampling_text
from specdraft.traces.store import TraceStore

pytestmark = pytest.mark.usefixtures("few_rounds")

GREEDY = {"temperature": 0.0, "top_k": 0, "top_p": 1.0}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TraceStore:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return TraceStore(tmp_path / "traces")


def put_text(store: TraceStore, prompt: str, target: str = "t" * 16, tokens: int = 5, **more: object) -> str:
    about = {"kind": "trajectory", "target": {"weights": target}, "sampling": GREEDY, "prompt": prompt}
    return store.put(about | {"prompt_tokens": 3, "max_new_tokens": 8} | more, {"tokens": np.zeros(tokens)})


def put_ranks(store: TraceStore, text: str, draft: str = "d" * 16) -> str:
    return store.put({"kind": "annotation", "trajectory": text, "draft": {"weights": draft}}, {"ranks": np.zeros(5)})


def put_trees(store: TraceStore, ranks: str) -> str:
    return store.put({"kind": "expansion", "annotation": ranks, "target": {"weights": "t" * 16}}, {"x": np.zeros(5)})


def put_all(store: TraceStore, draft: str = "d" * 16) -> list[str]:
    texts = [put_text(store, prompt, tokens=tokens) for prompt, tokens in (("ab", 5), ("cd", 7))]
    ranks = [put_ranks(store, text, draft) for text in texts]
    return [*texts, *ranks, put_trees(store, ranks[0])]


class TestGroups:
    def test_names_come_from_labels(self, store: TraceStore) -> None:
        labelled = store.labelled({"ab": "story-1"}, target="/models/big", draft="zoo:draft", prompts="q.jsonl")
        keys = put_all(labelled)
        texts, ranks = group_traces(store)
        assert texts.whose == Whose("big", "-", "greedy", "q.jsonl", "8")
        assert ranks.whose == Whose("big", "zoo:draft", "greedy", "q.jsonl", "8")
        assert (texts.kinds, texts.tokens) == ({"trajectory": 2}, 3 + 5 + 3 + 7)
        assert (ranks.kinds, ranks.tokens) == ({"annotation": 2, "expansion": 1}, 0)
        assert texts.size_bytes + ranks.size_bytes == sum(path.stat().st_size for path in store.folder.iterdir())
        prompts = {trace.key: prompt for trace, _, prompt in describe_traces(store)}
        assert prompts == dict(zip(keys, ["story-1", "?", "story-1", "?", "story-1"], strict=True))

    def test_labels_do_not_name_traces(self, store: TraceStore) -> None:
        assert put_all(store) == put_all(store.labelled({"ab": "x"}, target="y"))

    def test_traces_without_labels(self, store: TraceStore) -> None:
        put_all(store)
        assert [group.whose for group in group_traces(store)] == [
            Whose("tttttttt", "-", "greedy", "?", "8"),
            Whose("tttttttt", "dddddddd", "greedy", "?", "8"),
        ]

    def test_two_drafters_on_the_same_texts(self, store: TraceStore) -> None:
        """The text says what it was first recorded for: a drafter is named by its own traces."""
        put_all(store.labelled(target="zoo:target", draft="zoo:draft"))
        put_all(store.labelled(target="zoo:target", draft="zoo:other"), "e" * 16)
        text = next(trace.key for trace in store.list() if trace.about["kind"] == "trajectory")
        lookup = {"kind": "annotation", "trajectory": text, "draft": {"drafter": {"kind": "ngram", "size": 2}}}
        store.labelled(draft="drafter=ngram").put(lookup, {"ranks": np.zeros(2)})
        drafts = {group.whose.draft: group.kinds for group in group_traces(store)}
        assert drafts == {
            "-": {"trajectory": 2},
            "zoo:draft": {"annotation": 2, "expansion": 1},
            "zoo:other": {"annotation": 2, "expansion": 1},
            "ngram": {"annotation": 1},
        }

    def test_costs_have_no_text(self, store: TraceStore) -> None:
        put_all(store.labelled(target="zoo:target", draft="zoo:draft"))
        costs = {"kind": "costs", "target": {"weights": "t" * 16}, "draft": {"weights": "d" * 16}}
        key = store.put(costs, {"x": np.zeros(1)})
        assert Whose("zoo:target", "zoo:draft", "-", "-", "-") in [group.whose for group in group_traces(store)]
        assert next(prompt for trace, _, prompt in describe_traces(store) if trace.key == key) == "-"

    def test_a_text_that_was_deleted(self, store: TraceStore) -> None:
        text, *_ = put_all(store.labelled(target="zoo:target", draft="zoo:draft"))
        store.remove(text)
        assert Whose("?", "zoo:draft", "?", "?", "?") in [group.whose for group in group_traces(store)]


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        (Sampling(), "greedy"),
        (Sampling(0.6), "T=0.6"),
        (Sampling(1.0, 20, 0.9), "T=1 top-k 20 top-p 0.9"),
    ],
)
def test_a_sampling_setting(sampling: Sampling, text: str) -> None:
    assert sampling_text(vars(sampling)) == text


class TestCommand:
    def test_of_a_study(
        self,
        run: Run,
        store: TraceStore,
        tiny_pair_folders: PairFolders,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("COLUMNS", "120")
        (tmp_path / "q.jsonl").write_text('{"question_id": "tale", "prompt": "Once"}\n{"prompt": "x"}\n')
        pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
        chosen = [*pair, "tree=chain", "budget=2", "max_new_tokens=4", f"prompts.path={tmp_path / 'q.jsonl'}"]
        assert run("sweep", *chosen, "report=false", "--out", tmp_path / "out").code == 0
        lines = run("traces", "list").out.splitlines()
        today = f"{datetime.now():%Y-%m-%d}"
        (texts,) = [line.split() for line in lines if "trajectories" in line]
        assert texts[:7] == ["target", "-", "greedy", "q.jsonl", "4", "2", "trajectories"]
        assert texts[7] == "15" and texts[-1] == today  # <s> and the bytes of the prompts, and 4 tokens for each
        (ranks,) = [line.split() for line in lines if "annotations" in line]
        assert ranks[:7] == ["target", "draft", "greedy", "q.jsonl", "4", "2", "annotations"]
        each = run("traces", "list", "--each").out
        listed = json.loads(run("traces", "list", "--json").out)
        assert all(trace["key"] in each for trace in listed)
        assert {trace["labels"].get("prompt") for trace in listed if trace["about"]["kind"] == "trajectory"} == {
            "tale",
            "2",
        }
        assert each.count("tale") == 2
