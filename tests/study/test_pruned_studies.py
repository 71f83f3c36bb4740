"""Pruning as an axis of a study: columns, both engines, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from support.asked import prompts_of, tiny_pair_of
from support.drafting import draft_logits
from support.tiny_models import PairFolders

from specdraft.config import Settings
from specdraft.drafters.pair import Pair
from specdraft.errors import ConfigError
from specdraft.prompts import PromptSpec, load_prompts
from specdraft.results.study_tables import read_records
from specdraft.sampling.distribution import Sampling
from specdraft.study.plan import plan_study
from specdraft.study.recorded import RecordedTexts, record_texts
from specdraft.study.run import run_study

GRID = ["tree=kary,best_first", "budget=6", "pruning=none,threshold,ratio", "pruning.min_acceptance_prob=1.0"]
OFF = {"replay": ["cost.measure=off"], "live": []}
KEYS = ["tree", "pruning", "prompt_id"]
COUNTS = ["steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens", "pruned_tokens"]


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    prompts = prompts_of(tmp_path_factory.mktemp("prompts"))
    return [*tiny_pair_of(tiny_pair_folders), *prompts, "report=false", "max_new_tokens=10"]


@pytest.fixture(scope="module", autouse=True)
def _traces(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.mktemp("traces")))
        yield


@pytest.fixture(scope="module")
def records(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    found = {}
    for engine in ("replay", "live"):
        out = run_study(
            plan_study([*base, *GRID, f"engine={engine}", *OFF[engine]]), tmp_path_factory.mktemp(engine) / "study"
        )
        assert not out.failures
        table = read_records(out.out)
        found[engine] = table[table["tree"].isin(["kary", "best_first"])]
    return found


def test_live_is_replay_to_the_integer(records: dict[str, pd.DataFrame]) -> None:
    replayed, live = (
        table.astype(dict.fromkeys(KEYS, str)).set_index(KEYS)[COUNTS].sort_index() for table in records.values()
    )
    assert len(live) == 2 * 3 * 4
    pd.testing.assert_frame_equal(replayed, live)


def test_the_columns(records: dict[str, pd.DataFrame]) -> None:
    table = records["replay"].astype({"pruning": str})
    assert set(table["pruning"]) == {"none", "threshold-map1.0", "ratio"}
    whole, nothing, some = (table[table["pruning"] == name] for name in ("none", "threshold-map1.0", "ratio"))
    assert (whole["pruned_tokens"] == 0).all() and (whole["pruned_share"] == 0).all()
    assert whole["regret_tokens"].isna().all()
    assert (nothing["drafted_tokens"] == 0).all() and (nothing["pruned_share"] == 1).all()
    assert nothing["acceptance_rate"].isna().all() and (nothing["acceptance_length"] == 0).all()
    assert (nothing["steps"] == nothing["new_tokens"] - 1).all()  # plain decoding
    assert (some["drafted_tokens"] == 5 * some["steps"]).all() and (some["pruned_tokens"] == some["steps"]).all()
    assert some["pruned_share"].tolist() == pytest.approx([1 / 6] * len(some), rel=1e-5)
    assert (some["regret_tokens"] >= 0).all() and (nothing["regret_tokens"] >= some["regret_tokens"].min()).all()


def test_the_parts_of_live_time_are_all_of_it(records: dict[str, pd.DataFrame]) -> None:
    live = records["live"]
    parts = live[["prefill_s", "draft_s", "predict_s", "verify_s", "other_s"]]
    assert parts.sum(axis=1).tolist() == pytest.approx(live["wall_s"].tolist(), rel=0.01)
    assert ((live["predict_s"] > 0) == (live["pruning"].astype(str) != "none")).all()
    assert live["regret_tokens"].isna().all()
    assert records["replay"]["predict_s"].isna().all()


def test_halves_are_pruned_by_temperatures_of_their_own(base: list[str], tmp_path: Path) -> None:
    """A row of calibrated pruning is worth nothing once the prompts are others; one of raw scores is."""
    plan = plan_study([*base, "tree=kary", "budget=6", "pruning=threshold", "pruning.scores=calibrated,raw"])
    weights = {c.pruning.label: len(c.weights) for c in plan.combinations}
    assert weights == {"threshold": 3, "threshold-sraw": 2}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["pruning=threshold", "pruning.min_acceptance_prob=1.5"], "pruning.min_acceptance_prob=1.5 is out of range"),
        (
            ["pruning=ratio", "pruning.pruning_ratio=-0.1"],
            "pruning.pruning_ratio=-0.1 is out of range; expected 0 to 1",
        ),
        (["pruning=levels", "pruning.keep_per_level=0"], "pruning.keep_per_level=0 is out of range"),
        (["pruning=none", "pruning.scores=raw"], "pruning.scores is not a key"),
        (["pruning=treshold"], "pruning=treshold: there is no such pruning; did you mean 'threshold'"),
        (["pruning=adaptive", "cost.measure=off"], "pruning=adaptive weighs measured costs, and cost.measure=off"),
        (["pruning=ratio", "drafter=ngram"], "pruning=ratio looks at probabilities, and drafter=ngram gives none"),
        (["pruning=ratio", "sampling=sample", "acceptance=recursive"], "pruning=ratio looks at drawn children"),
        (["pruning=ratio", "pruning.online=true", "engine=replay"], "pruning.online=true what is pruned depends on"),
    ],
)
def test_what_cannot_be(base: list[str], overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        plan_study([*base, "tree=kary", "budget=4", *overrides])


def test_a_single_node_is_sent_where_its_probability_is_enough(
    base: list[str], tiny_pair: Pair, tmp_path: Path
) -> None:
    """Step by step in plain Python; calibrated scores of a prompt have the temperature of the other half."""
    asked = ["tree=chain", "budget=1", "pruning=threshold", "pruning.min_acceptance_prob=0.6", *OFF["replay"]]
    done = run_study(plan_study([*base, *asked, "pruning.scores=calibrated,raw"]), tmp_path / "study")
    table = read_records(done.out).astype(dict.fromkeys(KEYS, str)).set_index(["pruning", "prompt_id"])
    prompts = load_prompts(PromptSpec(path=next(o for o in base if "prompts.path" in o).partition("=")[2]))
    texts = record_texts(tiny_pair, prompts, "auto", Sampling(), Settings(max_new_tokens=10), 1)
    fitted, differing = texts.calibrate().of_prompt, 0
    for name in texts.names:
        counts = {}
        for policy, temperature in (("threshold-map0.6", fitted[name]), ("threshold-sraw-map0.6", 1.0)):
            counts[policy] = chain_of_one(tiny_pair, texts, name, temperature)
            assert table.loc[(policy, name), COUNTS[:3]].tolist() == counts[policy]
        differing += len({tuple(each) for each in counts.values()}) > 1
    assert differing, "calibrated scores prune as raw ones do: nothing is tested"


def chain_of_one(pair: Pair, texts: RecordedTexts, name: str, temperature: float) -> list[int]:
    """Steps, nodes sent and tokens accepted."""
    likely, choice = (draft_logits(pair, texts, name) / temperature).softmax(-1).max(-1)
    tokens = texts.traces.trajectories[name].tokens.tolist()
    at, counts = 0, [0, 0, 0]
    while at < len(tokens) - 1:
        sent = bool(likely[at] >= 0.6)
        accepted = sent and int(choice[at]) == tokens[at + 1]
        counts = [count + more for count, more in zip(counts, (1, sent, accepted), strict=True)]
        at += 1 + accepted
    return counts


def test_online_pruning_is_live_and_says_when_it_starts_anew(base: list[str]) -> None:
    plan = plan_study([*base, "tree=kary", "budget=4", "pruning=threshold", "pruning.online=true"])
    assert [c.engine for c in plan.combinations] == ["live"]
    (note,) = [note for note in plan.notes if "online" in note]
    assert "start anew, at 1 and 0, with every prompt" in note


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["zoo", "zoo-distilled", "zoo-tiny"])
def test_every_policy_on_every_tree_of_a_bundled_pair(pair: str, tmp_path: Path) -> None:
    """Fitted trees, calibrated scores and measured costs too: live decoding finds what replay fitted and measured."""
    trees, policies = "tree=chain,kary,medusa,best_first,sequoia", "pruning=threshold,levels,ratio,adaptive"
    grid = [f"pair={pair}", trees, policies, "budget=16", "prompts.limit=6", "max_new_tokens=32", "report=false"]
    tables = []
    for engine in ("replay", "live"):
        done = run_study(plan_study([*grid, f"engine={engine}"]), tmp_path / engine)
        assert not done.failures
        table = read_records(done.out).astype(dict.fromkeys(KEYS, str))
        tables.append(table.set_index(KEYS)[COUNTS].sort_index())
    assert len(tables[1]) == 5 * 4 * 6
    pd.testing.assert_frame_equal(*tables)
