"""Sampling and acceptance rules as axes of a study."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.tiny_models import PairFolders
from support.written import rows_in

from specdraft import cli
from specdraft.acceptance import registry
from specdraft.bench.curve import CostCurve
from specdraft.commands.options import USAGE
from specdraft.drafters.loaded.model import ModelDrafter
from specdraft.errors import ConfigError
from specdraft.losslessness import enumeration
from specdraft.results.journal import Row
from specdraft.results.metrics import COUNTS
from specdraft.study.engines import live, replay
from specdraft.study.plan import StudyPlan, plan_study
from specdraft.study.run import Outcome, run_study
from specdraft.traces import batches
from specdraft.traces import library as traces
from specdraft.traces.rule_records import record_rules

TEXTS = [("a", "story", "Once upon a time"), ("b", "story", "It was late"), ("c", "code", "def f(x):")]
NEW = 6
ALL = f"acceptance={','.join(registry())}"
CURVE = CostCurve(
    [1, 2, 4, 8, 16],
    [1e-3, 1e-3, 2e-3, 3e-3, 4e-3],
    [5e-3, 6e-3, 7e-3, 8e-3, 9e-3],
    5e-3,
    1e-3,
    5e-4,
    2e-2,
    1e-2,
    1,
    "made up",
)
FAMILIES = {  # of two tokens each; what is known of them has names of its own
    name: {f"{name}, small": (2, enumeration.shape(*factors))}
    for name, factors in {"chain": (1,), "wide": (2,), "k-ary": (2, 2), "mixed": (1, 2), "by rank": (2,)}.items()
}
GRID = [ALL, "tree=chain,kary", "budget=3", "sampling.temperature=0,1.0", "sampling.top_p=0.9,1.0"]
SECONDS = ["wall_s", "prefill_s", "draft_s", "verify_s", "other_s", "tokens_per_s", "speedup"]


@pytest.fixture(scope="module")
def base(tiny_pair_folders: PairFolders, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"question_id": i, "category": c, "prompt": p}) + "\n" for i, c, p in TEXTS))
    pair = [
        f"pair.target.path={tiny_pair_folders.target}",
        f"pair.draft.path={tiny_pair_folders.draft}",
        "pair.name=tiny",
    ]
    return [*pair, "prompts=jsonl", f"prompts.path={path}", f"max_new_tokens={NEW}", "sampling=sample"]


@pytest.fixture(scope="module", autouse=True)
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where traces go that nobody asks about; costs are made up, and rules are proven on one small tree of a family."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enumeration, "FAMILIES", FAMILIES)
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.mktemp("traces")))
        patch.setattr("specdraft.study.engines.replay.pair_costs", lambda *given: CURVE)
        yield


@pytest.fixture(scope="module")
def plan(base: list[str]) -> StudyPlan:
    return plan_study([*base, *GRID])


@pytest.fixture(scope="module")
def outcome(plan: StudyPlan, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Do not write into its folder."""
    return run_study(plan, tmp_path_factory.mktemp("rules") / "study")


@pytest.fixture
def own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return tmp_path / "traces"


def read(out: Path, table: str) -> pd.DataFrame:
    return pd.read_csv(out / f"{table}.csv", keep_default_na=False, na_values=[""])


def counts(out: Path) -> dict[Any, Any]:
    """Every number of the rows that is no time, exactly."""
    found = {}
    for row in rows_in(out):
        one = json.loads(row.to_json())
        one["tally"] = {name: value for name, value in one["tally"].items() if not name.endswith("_s")}
        found[row.combination, row.weights, row.prompt_id, row.repeat] = one
    return found


def run(base: list[str], out: Path, *overrides: str) -> dict[Any, Any]:
    outcome = run_study(plan_study([*base, *overrides]), out)
    assert outcome.failures == []
    return counts(out)


class TestAxes:
    def test_all_is_there(self, plan: StudyPlan, outcome: Outcome) -> None:
        assert outcome.failures == []
        records = read(outcome.out, "records")
        assert len(records) == outcome.rows == len(plan.combinations) * len(TEXTS)
        settings = ["acceptance", "tree", "temperature", "top_p"]
        found = set(records[records["tree"] != "hindsight"][settings].itertuples(index=False, name=None))
        misfits = {("greedy", tree, 1.0, p) for tree in ("chain", "kary") for p in (0.9, 1.0)}
        misfits |= {(rule, "kary", t, p) for rule in ("rejection", "block") for t in (0.0, 1.0) for p in (0.9, 1.0)}
        every = {
            (rule, tree, t, p)
            for rule in registry()
            for tree in ("chain", "kary")
            for t in (0.0, 1.0)
            for p in (0.9, 1.0)
        }
        assert found == every - misfits
        assert not records.duplicated([*settings, "prompt_id", "repeat", "budget"]).any()

    def test_every_rule_is_proven(self, plan: StudyPlan, outcome: Outcome) -> None:
        sampled = {c.rule.kind for c in plan.combinations if not c.sampling.greedy}
        proven = outcome.certificate["rules"]
        assert set(proven) == sampled == set(registry()) - {"greedy"}
        assert {kind for kind, rule in proven.items() if not rule["lossless"]} == {"typical"}
        assert all(one["vocabulary"] == 2 for rule in proven.values() for one in rule["enumerated"])

    def test_engines(self, outcome: Outcome) -> None:
        records = read(outcome.out, "records")
        for row in records.itertuples():
            few = row.acceptance == "no_replacement" and row.tree == "kary" and (row.temperature == 0 or row.top_p < 1)
            live = few or row.acceptance == "typical"
            assert row.engine == ("live" if live else "replay"), row

    def test_times_and_overlap_belong_to_an_engine(self, outcome: Outcome) -> None:
        for table in ("records", "summary", "by_category"):
            found = read(outcome.out, table)
            live, replayed = (found[found["engine"] == engine] for engine in ("live", "replay"))
            assert live[["alpha", "est_tokens_per_s", "est_speedup"]].isna().all(axis=None)
            assert live[SECONDS].notna().all(axis=None)
            assert replayed[SECONDS].isna().all(axis=None)
            assert replayed["alpha"].between(0, 1).all()
            assert (replayed["est_speedup"] > 0).all()
        alphas = (
            read(outcome.out, "records")
            .query("engine == 'replay'")
            .groupby(["prompt_id", "temperature", "top_p"])["alpha"]
        )
        assert (alphas.nunique() == 1).all()  # of the text, whatever the rule and the tree
        sampled = read(outcome.out, "records").query("temperature == 1 and acceptance == 'rejection'")
        assert (sampled["alpha"] > 0).all()
        assert (sampled["alpha"] < 1).all()

    def test_identities_hold(self, outcome: Outcome) -> None:
        records = read(outcome.out, "records")
        near = {"rel": 1e-4, "abs": 1e-4}
        assert (1 + records["accepted_tokens"] + records["bonus_tokens"]).tolist() == pytest.approx(
            records["new_tokens"].tolist(), **near
        )
        static = records[records["acceptance"] != "no_replacement"]  # which may run out of children
        assert static["drafted_tokens"].tolist() == pytest.approx((static["steps"] * static["nodes"]).tolist(), **near)
        assert (records["drafted_tokens"] <= records["steps"] * records["nodes"] * (1 + 1e-4)).all()
        assert (records["accepted_tokens"] <= records["steps"] * records["depth"] + 1e-4).all()
        assert records["acceptance_rate"].between(0, 1).all()
        by_rule = records.groupby("combination")
        lengths = read(outcome.out, "lengths")
        assert lengths.groupby("combination")["steps"].sum().to_dict() == pytest.approx(
            by_rule["steps"].sum().to_dict(), rel=1e-4
        )
        accepted = (lengths["steps"] * lengths["acceptance_length"]).groupby(lengths["combination"]).sum()
        assert accepted.to_dict() == pytest.approx(by_rule["accepted_tokens"].sum().to_dict(), **near)
        nodes = read(outcome.out, "nodes")
        assert nodes.groupby("combination")["accepted"].sum().to_dict() == pytest.approx(
            by_rule["accepted_tokens"].sum().to_dict(), **near
        )
        assert nodes["mean_weight"].between(0, 1).all()
        assert (nodes["accepted"] <= nodes["reached"] + 1e-4).all()
        first = read(outcome.out, "positions").query("depth == 1").set_index("combination")["reached"]
        assert first.to_dict() == pytest.approx(by_rule["steps"].sum().to_dict(), rel=1e-4)

    def test_expected_counts_are_fractions_and_greedy_ones_whole(self, outcome: Outcome) -> None:
        records = read(outcome.out, "records")
        whole = (records[list(COUNTS)] == records[list(COUNTS)].round()).all(axis=1)
        expected = (
            (records["engine"] == "replay")
            & (records["temperature"] > 0)
            & ~records["acceptance"].isin(["topk", "greedy"])
        )
        assert whole[~expected].all()
        assert not whole[expected].all()

    def test_replayed_rules_are_of_one_text(self, outcome: Outcome) -> None:
        replayed = read(outcome.out, "records").query("engine == 'replay'")
        assert (replayed.groupby(["prompt_id", "temperature", "top_p"])["new_tokens"].nunique() == 1).all()

    def test_fractions_are_kept_exactly(self, outcome: Outcome) -> None:
        rows = rows_in(outcome.out)
        assert any(row.tally.steps != round(row.tally.steps) for row in rows)
        for row in rows:
            again = Row.from_json(json.loads(row.to_json()))
            assert again.to_json() == row.to_json()
            assert 1 + again.tally.accepted_tokens + again.tally.bonus_tokens == pytest.approx(
                again.tally.new_tokens, abs=1e-9
            )
            assert not again.tally.lengths or sum(again.tally.lengths.values()) == pytest.approx(again.tally.steps)

    def test_skipped_combinations_say_why(self, plan: StudyPlan) -> None:
        reasons = dict(plan.skipped)
        assert len(reasons) == 4 + 8
        chain = next(why for what, why in reasons.items() if "acceptance=block" in what and "temperature=1.0" in what)
        assert chain.startswith(
            "the rule block is for chains only; rules that fit: kseq, membership, no_replacement, recursive, topk, "
        )
        assert "block" not in chain.partition("fit:")[2]
        hot = next(why for what, why in reasons.items() if "acceptance=greedy" in what and "tree=chain" in what)
        assert hot.startswith("the rule greedy needs sampling.temperature=0; rules that fit: block, ")


COUNTS_ONLY = list(COUNTS)
RANDOM = ["rejection", "recursive", "no_replacement", "kseq", "membership", "block"]


def test_at_temperature_0_replay_is_live_to_the_integer(base: list[str], tmp_path: Path) -> None:
    grid = [
        f"acceptance={','.join(RANDOM)}",
        "tree=chain,kary,wide",
        "budget=4",
        "sampling.temperature=0",
        "output.steps=true",
    ]
    live, auto = (run(base, tmp_path / engine, *grid, f"engine={engine}") for engine in ("live", "auto"))
    assert len(live) == len(auto) == (3 * len(RANDOM) - 4) * len(TEXTS)
    assert set(read(tmp_path / "auto", "records")["engine"]) == {"live", "replay"}
    keys = ["acceptance", "tree", "prompt_id"]
    for table, order in (("records", keys), ("steps", [*keys, "step"])):
        both = [read(tmp_path / engine, table).sort_values(order).reset_index(drop=True) for engine in ("live", "auto")]
        columns = [*order, *({"nodes", "depth", "cut", "loop_share", *COUNTS} & set(both[0].columns))]
        pd.testing.assert_frame_equal(both[0][columns], both[1][columns])
    assert read(tmp_path / "live", "records")["accepted_tokens"].sum() > 0
    run(base, tmp_path / "other", *grid, "tree=kary", "engine=live", "seed=1")
    found, other = (read(tmp_path / name, "records").query("tree == 'kary'") for name in ("live", "other"))
    both = [table.sort_values(keys)[COUNTS_ONLY].to_numpy().tolist() for table in (found, other)]
    assert both[0] == both[1]  # nothing is left to chance
    assert both[0]


class TestEngine:
    def engines(self, base: list[str], *overrides: str) -> dict[str, str]:
        found = plan_study([*base, "budget=3", *overrides]).combinations
        return {f"{c.rule.kind} {c.shape.kind}": c.engine for c in found if c.shape.kind != "hindsight"}

    def test_without_replacement(self, base: list[str]) -> None:
        rule = "acceptance=no_replacement"
        assert self.engines(base, rule, "tree=chain,kary") == {
            "no_replacement chain": "replay",
            "no_replacement kary": "replay",
        }
        for setting in (
            "sampling.top_p=0.9",
            "sampling.top_k=1",
            "sampling.temperature=0",
            "sampling.temperature=0.05",
        ):
            found = self.engines(base, rule, "tree=chain,kary", setting)
            assert found == {"no_replacement chain": "replay", "no_replacement kary": "live"}, setting
        assert self.engines(base, rule, "tree=kary", "sampling.top_k=2") == {
            "no_replacement kary": "replay",
            "no_replacement chain": "replay",
        }

    def test_whole_steps_need_live_decoding(self, base: list[str], tmp_path: Path) -> None:
        overrides = ["tree=kary", "acceptance=topk,recursive", "output.steps=true"]
        assert self.engines(base, *overrides)["topk kary"] == "replay"
        assert self.engines(base, *overrides)["recursive kary"] == "live"
        run(base, tmp_path / "out", "budget=3", *overrides)
        steps = read(tmp_path / "out", "steps")
        assert set(steps["acceptance"]) == {"topk", "recursive"}
        records = read(tmp_path / "out", "records")
        listed, counted = (t.groupby("combination")["accepted_tokens"].sum().to_dict() for t in (steps, records))
        assert listed == counted

    def test_replay_of_a_live_rule(self, base: list[str]) -> None:
        plan = plan_study([*base, "budget=3", "tree=kary", "acceptance=recursive,typical", "engine=replay"])
        ((what, why),) = plan.skipped
        assert "acceptance=typical" in what
        assert why.startswith(
            "acceptance=typical has no replay; it needs engine=live or engine=auto; rules that fit: kseq, "
        )
        assert "typical" not in why.partition("fit:")[2]

    def test_replay_of_too_few_children(self, base: list[str]) -> None:
        with pytest.raises(
            ConfigError, match="can have fewer than 2 children, which only drafting tells; it needs engine=live"
        ):
            plan_study(
                [*base, "budget=3", "tree=kary", "acceptance=no_replacement", "sampling.top_p=0.9", "engine=replay"]
            )


BAD = [
    (["sampling.temperature=-1"], "sampling.temperature=-1.0 is out of range"),
    (["sampling.temperature=nan"], "sampling.temperature=nan is out of range"),
    (["sampling.temperature=1,inf"], "sampling.temperature=inf is out of range"),
    (["sampling.temperature=hot"], "sampling.temperature: "),
    (["sampling.top_p=0"], "sampling.top_p=0.0 is out of range"),
    (["sampling.top_p=1.01"], "sampling.top_p=1.01 is out of range"),
    (["sampling.top_k=-1"], "sampling.top_k=-1 is out of range"),
    (["sampling.top_k=1.5"], "sampling.top_k: "),
    (["sampling.topp=1"], "sampling.topp is not a key; did you mean 'top_p'?"),
    (["acceptance=recursiv"], "acceptance=recursiv: there is no such acceptance; did you mean 'recursive'?"),
    (["acceptance=typical", "acceptance.epsilon=0"], "acceptance.epsilon=0.0 is out of range"),
    (["acceptance=block", "tree=kary"], "the rule block is for chains only; rules that fit: kseq, "),
    (["acceptance=greedy", "tree=kary"], "the rule greedy needs sampling.temperature=0; rules that fit: kseq, "),
    (["acceptance=typical", "engine=replay"], "acceptance=typical has no replay; it needs engine=live"),
    (["acceptance=recursive", "tree=best_first"], "tree=best_first chooses nodes by their probability"),
    (["acceptance=recursive", "tree=hindsight"], "tree=hindsight is fitted to draft ranks"),
    (["acceptance=recursive", "tree=paths", "tree.paths=[[1]]"], "skips child ranks"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=[" ".join(overrides) for overrides, _ in BAD])
def test_bad_input_is_one_line(
    overrides: list[str],
    message: str,
    base: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chain = [] if any(text.startswith("tree=") for text in overrides) else ["tree=chain"]
    rule = [] if any(text.startswith("acceptance=") for text in overrides) else ["acceptance=recursive"]
    argv = ["specdraft", "sweep", *base, "budget=3", *chain, *rule, *overrides, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (USAGE, "")
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


MIXED = ["acceptance=recursive,no_replacement,kseq,traversal,typical,topk", "tree=kary,wide,chain", "budget=3"]


@pytest.fixture(scope="module")
def mixed(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    return run(base, tmp_path_factory.mktemp("mixed") / "out", *MIXED)


@pytest.fixture(scope="module")
def by_two(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """Recorded in batches of two prompts."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("by-two")
        patch.setenv("SPECDRAFT_TRACES", str(folder / "traces"))
        patch.setitem(batches.ROWS, "cpu", 2)
        return run(base, folder / "out", *MIXED)


class TestSeeds:
    def test_the_order_does_not_matter(
        self, base: list[str], mixed: dict[Any, Any], own_store: Path, tmp_path: Path
    ) -> None:
        turned = ["acceptance=topk,typical,traversal,kseq,no_replacement,recursive", "tree=chain,wide,kary", "budget=3"]
        assert run(base, tmp_path / "out", *turned) == mixed

    def test_nor_does_what_else_there_is(
        self, base: list[str], mixed: dict[Any, Any], own_store: Path, tmp_path: Path
    ) -> None:
        """Fewer children of one node at first, the pieces in a row."""
        found: dict[Any, Any] = {}
        for rules, trees in (
            ("traversal,typical,no_replacement,recursive", "kary,chain"),
            ("kseq,topk", "chain,kary"),
            ("*", "wide"),
        ):
            rule = MIXED[0] if rules == "*" else f"acceptance={rules}"
            found |= run(base, tmp_path / "out", rule, f"tree={trees}", "budget=3")
        assert {key: found[key] for key in mixed} == mixed

    def test_equal_trees_are_decoded_once_and_alike(self, base: list[str], tmp_path: Path) -> None:
        def tallies(*trees: str) -> set[str]:
            words = ["acceptance=traversal", "engine=live", f"tree={','.join(trees)}", "budget=2"]
            found = run(base, tmp_path / "-".join(trees), *words)
            assert len(found) == len(trees) * len(TEXTS)
            return {json.dumps([one["prompt_id"], one["tally"]]) for one in found.values()}

        assert tallies("kary", "wide") == tallies("wide", "kary") == tallies("wide") == tallies("kary")
        assert len(tallies("chain") | tallies("wide")) == 2 * len(TEXTS)

    def test_another_seed_is_another_text(self, base: list[str], mixed: dict[Any, Any], tmp_path: Path) -> None:
        other = run(base, tmp_path / "out", *MIXED, "seed=1")
        assert len(other) == len(mixed)
        assert not other.keys() & mixed.keys()
        tallies = [
            sorted(json.dumps([one["prompt_id"], one["tally"]]) for one in found.values()) for found in (other, mixed)
        ]
        assert tallies[0] != tallies[1]

    def test_each_repeat_is_another_text(self, base: list[str], mixed: dict[Any, Any], tmp_path: Path) -> None:
        found = run(base, tmp_path / "out", *MIXED, "repeats=2")
        first, second = ({key[:3]: one["tally"] for key, one in found.items() if key[3] == repeat} for repeat in (0, 1))
        assert first == {key[:3]: one["tally"] for key, one in mixed.items()}
        assert len(second) == len(first)
        assert sum(first[key] != second[key] for key in first) > len(first) / 2
        summary = read(tmp_path / "out", "summary").set_index("combination")
        records = read(tmp_path / "out", "records")
        assert len(records) == 2 * len(summary) * len(TEXTS)
        assert summary["steps"].to_dict() == pytest.approx(
            records.groupby("combination")["steps"].sum().to_dict(), rel=1e-4
        )

    @pytest.mark.parametrize("after", [1, 4, 9])
    def test_interrupted_and_resumed(
        self,
        after: int,
        by_two: dict[Any, Any],
        base: list[str],
        own_store: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        calls = []

        def stopping(function: Callable[..., Any]) -> Callable[..., Any]:
            def called(*given: Any, **more: Any) -> Any:
                if len(calls) == after:
                    raise KeyboardInterrupt
                calls.append(function)
                return function(*given, **more)

            return called

        monkeypatch.setitem(batches.ROWS, "cpu", 2)
        with monkeypatch.context() as patch:
            for module, name in (
                (traces, "record_trajectories"),
                (traces, "record_rules"),
                (live, "decode"),
                (replay.Replayer, "run"),
            ):
                patch.setattr(module, name, stopping(getattr(module, name)))
            with pytest.raises(KeyboardInterrupt):
                run_study(plan_study([*base, *MIXED]), tmp_path / "out")
        assert counts(tmp_path / "out").items() < by_two.items()
        assert run(base, tmp_path / "out", *MIXED) == by_two

    def test_another_study_records_nothing(
        self, base: list[str], own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run(base, tmp_path / "one", "acceptance=recursive,topk", "tree=kary", "budget=3")
        monkeypatch.setattr(traces, "record_trajectories", None)
        monkeypatch.setattr(ModelDrafter, "annotate", None)
        with monkeypatch.context() as patch:
            patch.setattr(traces, "record_rules", None)
            second = run(base, tmp_path / "two", "acceptance=recursive,topk", "tree=kary", "budget=3", "name=other")
        assert first == second
        judged: list[list[str]] = []

        def judging(*given: Any) -> Any:
            judged.append([part.name for part in given[4]])
            return record_rules(*given)

        monkeypatch.setattr(traces, "record_rules", judging)
        third = run(
            base, tmp_path / "three", "acceptance=kseq,block,recursive", "tree=chain,kary", "budget=2", "name=third"
        )
        assert {one["tally"]["overlap"] for one in third.values()} == {
            one["tally"]["overlap"] for one in first.values()
        }
        assert {tuple(sorted(rules)) for rules in judged} == {("block", "kseq")}  # `recursive` was there


def test_texts_of_one_token_have_no_step(base: list[str], tmp_path: Path) -> None:
    own = [text for text in base if not text.startswith("max_new_tokens")]
    run(own, tmp_path / "out", "max_new_tokens=1", "tree=kary", "budget=3", "acceptance=recursive,kseq,topk,traversal")
    records = read(tmp_path / "out", "records")
    assert records[["acceptance_rate", "acceptance_length", "block_efficiency", "alpha"]].isna().all(axis=None)
    assert (records["new_tokens"] == 1).all()


def test_trees_deeper_than_the_text(base: list[str], tmp_path: Path) -> None:
    run(base, tmp_path / "out", "tree=chain", "budget=20", "acceptance=rejection,block,kseq,traversal")
    assert (read(tmp_path / "out", "records")["depth"] == 20).all()
