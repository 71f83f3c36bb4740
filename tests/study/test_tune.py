"""`specdraft tune`: what an engine should be told, from traces and costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from support.command_line import Run, one_line
from support.engine_runs import study_of
from support.tiny_models import PairFolders

from specdraft.bench.cost_file import write_costs
from specdraft.bench.curve import CostCurve
from specdraft.study.plan import one_combination
from specdraft.study.tuning.engines import ENGINES, Setting, llama_cpp
from specdraft.study.tuning.tune import _needed_acceptance, plan_tune

TEXTS = [f"{word} {n}" for n in range(3) for word in ("Once upon", "def f(x):", "It was", "1 2 1 2")]
SIZES = [1, 65]


def curve(level_s: float) -> CostCurve:
    """Verifying takes a second, however many tokens; a level of drafting takes what is given."""
    return CostCurve(SIZES, [level_s] * 2, [1.0] * 2, 1.0, 0.0, 0.0, 1.0, 1.0, 1, "made up")


@pytest.fixture
def base(tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return [*study_of(tiny_pair_folders, tmp_path, TEXTS), "max_new_tokens=12"]


@pytest.fixture
def tune(run: Run, base: list[str], tmp_path: Path) -> Any:
    def tuned(engine: str, level_s: float, *more: str) -> tuple[dict[str, Any], Path]:
        table, out = tmp_path / "costs.json", tmp_path / f"out-{engine}-{level_s}"
        write_costs(table, one_combination("generate", base).pair, [curve(level_s)])
        said = run("tune", "--engine", engine, *base, f"cost.table={table}", *more, "--out", str(out), "--json")
        assert said.code == 0, said.err
        return json.loads(said.out), out

    return tuned


def test_sglangs_triple_is_what_a_replay_of_it_promises(tune: Any, run: Run, base: list[str], tmp_path: Path) -> None:
    told, out = tune("sglang", 0.001)
    assert told["verdict"] == "speculate" and told["speedup"]["lo"] > 1
    flags = dict(part.split() for part in (out / "sglang-flags.txt").read_text().split("--")[1:])
    steps, top_k, tokens = (
        int(flags[f"speculative-{name}"]) for name in ("num-steps", "eagle-topk", "num-draft-tokens")
    )
    tree = ["tree=chain"] if top_k == 1 else ["tree=expand_rerank", f"tree.top_k={top_k}", f"tree.steps={steps}"]
    again = run(
        "sweep", *base, *tree, f"budget={tokens - 1}", "cost.measure=off", "report=false", "--out", str(tmp_path / "x"),
        "--json",
    )  # fmt: skip
    rows = [row for row in json.loads(again.out)["summary"] if row["tree"] != "hindsight"]
    (row,) = (row for row in rows if row["budget"] == tokens - 1 and (row["tree"] == "chain") == (top_k == 1))
    assert told["best"]["block_efficiency"]["value"] == pytest.approx(row["block_efficiency"], rel=1e-5)
    assert (out / "figures" / "speed-up.png").stat().st_size > 1000


def test_where_drafting_costs_too_much_nothing_is_drafted(tune: Any) -> None:
    told, out = tune("vllm", 2.0)
    assert told["verdict"] == "do not speculate" and told["answer"][0].startswith("do not speculate: ")
    assert not (out / "vllm-speculative-config.json").exists()
    assert (out / "synthetic-acceptance.txt").exists()
    assert told["tree_over_chain"] is None


def test_rates_are_those_of_the_chosen_chain(tune: Any) -> None:
    told, out = tune("vllm", 0.001)
    rates = [rate["value"] for rate in told["acceptance_rates"]]
    assert rates == sorted(rates, reverse=True) and len(rates) == told["best"]["depth"]
    assert sum(rates) <= told["best"]["block_efficiency"]["value"] <= 1 + sum(rates)  # last steps have no bonus token
    config = json.loads((out / "vllm-speculative-config.json").read_text())
    assert config["method"] == "draft_model" and config["num_speculative_tokens"] == told["best"]["nodes"]
    table = pd.read_csv(out / "acceptance-rates.csv")
    assert table["unconditional"].tolist() == pytest.approx(rates, abs=1e-6)
    assert (table["low"] <= table["unconditional"]).all()
    assert table["conditional"].tolist() == pytest.approx(told["conditional_rates"], abs=1e-6)


def test_texts_for_people_and_yaml_for_tensorrt(run: Run, tune: Any) -> None:
    told, out = tune("tensorrt-llm", 0.001)
    config = yaml.safe_load((out / "tensorrt-llm.yaml").read_text())["speculative_config"]
    assert config["decoding_type"] == "DraftTarget" and config["max_draft_len"] == told["best"]["depth"]
    assert told["tree_over_chain"]["value"] > 0
    assert any(line.startswith("a tree ") for line in told["answer"])


@pytest.mark.parametrize(
    ("engine", "more", "said"),
    [
        ("sglnag", [], "--engine sglnag: there is no such engine; did you mean 'sglang'?"),
        ("vllm", ["tree=kary"], "tree=kary has no effect in tune: it tries what --engine vllm can be told"),
        ("vllm", ["budget=4"], "budget=4 has no effect in tune"),
        ("vllm", ["cost.measure=off"], "cost.measure=off: tune needs costs"),
        ("vllm", ["prompts.limit=4"], "tune needs 10 prompts at least"),
        ("hf", ["drafter=suffix"], "drafter=suffix: --engine hf has no such drafter; expected one of model, ngram"),
        ("vllm", ["sampling.temperature=0,1"], "one sampling setting at a time is tuned"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(run: Run, base: list[str], engine: str, more: list[str], said: str) -> None:
    refused = run("tune", "--engine", engine, *base, *more)
    assert said in one_line(refused._replace(err=refused.err.replace("loading libraries ...\n", "")))


def test_a_break_even_rate_yields_the_tokens() -> None:
    rate = _needed_acceptance(2.0, 3)
    assert rate is not None and sum(rate**n for n in range(4)) == pytest.approx(2.0, abs=1e-3)
    assert _needed_acceptance(5.0, 3) is None


def test_synthetic_acceptance_counts_the_bonus_where_an_engine_does() -> None:
    rates = [0.9, 0.5, 0.2]
    told = {"num_speculative_tokens": 3}
    assert ENGINES["vllm"].synthetic(told, rates)["synthetic_acceptance_rates"] == rates
    assert ENGINES["sglang"].synthetic(told, rates)["SGLANG_SIMULATE_ACC_LEN"] == 2.6
    assert ENGINES["tensorrt-llm"].synthetic(told, rates) == {"TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS": 1.6}
    assert llama_cpp(rates) == "--spec-synthetic-acceptance-rates 0.9000,0.5000,0.2000"


def test_candidates_are_all_an_engine_can_be_told(base: list[str]) -> None:
    plan = plan_tune("sglang", base)
    settings = {Setting.of(combination) for combination in plan.combinations.values()}
    assert {s for s in settings if s.top_k == 1} >= {Setting(n, 1, n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16)}
    assert Setting(4, 4, 15) in settings and all(s.nodes <= s.top_k + (s.steps - 1) * s.top_k**2 for s in settings)
    assert {Setting.of(c).top_k for c in plan_tune("vllm", base).combinations.values()} == {1}
