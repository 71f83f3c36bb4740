"""`specdraft tune`: what an engine should be told, from traces and costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from support.command_line import Run, one_line
from support.eagle import LAYOUTS, WIDTH, echoing_head, random_head, renamed, save_eagle
from support.engine_runs import study_of
from support.medusa import save_heads
from support.tiny_models import VOCAB, PairFolders

from specdraft.bench.cost_file import write_costs
from specdraft.bench.curve import Circumstances, CostCurve
from specdraft.bench.points import CostPoint
from specdraft.errors import ConfigError
from specdraft.prediction.length.vllm_table import VllmTable
from specdraft.results.intervals import Interval
from specdraft.study.plan import one_combination
from specdraft.study.tuning.answer import AtPoint, Candidate
from specdraft.study.tuning.choose import moved
from specdraft.study.tuning.engine_files import by_batch, written_before
from specdraft.study.tuning.engines import ENGINES, AtBatch, Setting, llama_cpp
from specdraft.study.tuning.rates import by_depth
from specdraft.study.tuning.tune import plan_tune
from specdraft.trees.shapes.chain import Chain

TEXTS = [f"{word} {n}" for n in range(3) for word in ("Once upon", "def f(x):", "It was", "1 2 1 2")]
SIZES = [1, 65]
BLOCK = {"weight": (WIDTH, WIDTH), "bias": (WIDTH,)}  # of a Medusa head


def curve(level_s: float, batch: int = 1) -> CostCurve:
    """Verifying takes a second, however many tokens; a level of drafting takes what is given."""
    return CostCurve(SIZES, [level_s] * 2, [1.0] * 2, 1.0, 0.0, 0.0, 1.0, 1.0, 1, "made up", batch=batch)


@pytest.fixture
def base(tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    return [*study_of(tiny_pair_folders, tmp_path, TEXTS), "max_new_tokens=12"]


@pytest.fixture
def tune(run: Run, base: list[str], tmp_path: Path) -> Any:
    def tuned(engine: str, level_s: float, *more: str, at_8: float | None = None) -> tuple[dict[str, Any], Path]:
        table, out = tmp_path / "costs.json", tmp_path / f"out-{engine}-{level_s}"
        drafter = [text for text in more if text.startswith("drafter")]
        curves = [curve(level_s), *([curve(at_8, 8)] if at_8 is not None else [])]
        write_costs(table, one_combination("generate", [*base, *drafter]).pair, curves)
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


def test_rates_are_the_chosen_chains_and_the_table_has_no_draft_where_it_does_not_pay(tune: Any) -> None:
    told, out = tune("vllm", 0.001, "cost.batch=1,8", at_8=2.0)
    rates = [rate["value"] for rate in told["acceptance_rates"]]
    assert rates == sorted(rates, reverse=True) and len(rates) == told["best"]["depth"]
    assert sum(rates) <= told["best"]["block_efficiency"]["value"] <= 1 + sum(rates)  # last steps have no bonus token
    config = json.loads((out / "vllm-speculative-config.json").read_text())
    assert config["method"] == "draft_model" and config["num_speculative_tokens"] == told["best"]["nodes"]
    table = pd.read_csv(out / "acceptance-rates.csv")
    assert table["unconditional"].tolist() == pytest.approx(rates, abs=1e-6)
    assert (table["low"] <= table["unconditional"]).all()
    assert table["conditional"].tolist() == pytest.approx(told["conditional_rates"], abs=1e-6)
    assert [(at["batch"], at["verdict"]) for at in told["points"]] == [(1, "speculate"), (8, "do not speculate")]
    assert told["break_even"] == {"context": 128, "pays": 1, "stops": 8}
    by_batch = json.loads((out / "vllm-speculative-config-by-batch-context-128.json").read_text())
    most = told["best"]["nodes"]
    assert by_batch["num_speculative_tokens"] == most
    assert by_batch["num_speculative_tokens_per_batch_size"] == [[1, 7, most], [8, 8, 0]]
    assert "with 128 tokens of context speculation pays up to a batch of 1 " in " ".join(told["answer"])


def test_tensorrts_dynamic_trees_are_eagles(base: list[str]) -> None:
    plan = plan_tune("tensorrt-llm", base)
    told = [plan.engine.told(Setting.of(c), c.pair) for c in plan.combinations.values()]
    assert {one["decoding_type"] for one in told} == {"DraftTarget"} and not any(
        "use_dynamic_tree" in one for one in told
    )
    name, text = plan.engine.file(told[0])
    assert name == "tensorrt-llm.yaml" and yaml.safe_load(text) == {"speculative_config": told[0]}


def test_tensorrts_trees_are_within_its_limits_and_choices_stand_beside(tune: Any, tmp_path: Path) -> None:
    shape, prefixes, config = LAYOUTS["authors3"]
    head = save_eagle(tmp_path / "head", renamed(random_head(shape).state_dict(), prefixes), config)
    told, out = tune("tensorrt-llm", 0.001, "drafter=eagle", f"drafter.path={head}")
    dynamic = [one["told"] for one in told["candidates"] if one["told"].get("use_dynamic_tree")]
    assert dynamic and all(
        one["max_draft_len"] <= one["max_total_draft_tokens"] <= one["dynamic_tree_max_topK"] * one["max_draft_len"]
        for one in dynamic
    )
    assert told["tree_over_chain"]["value"] > 0 and any(line.startswith("a tree ") for line in told["answer"])
    choices = told["best_choices"]
    assert told["best"]["told"]["decoding_type"] == "Eagle3" and choices["told"]["decoding_type"] == "Eagle"
    paths = choices["told"]["eagle_choices"]
    assert (
        len(paths) == choices["told"]["max_draft_len"] and max(map(len, paths)) == choices["told"]["num_eagle_layers"]
    )
    inner = {tuple(path[:-1]) for path in paths}
    widest = max(sum(len(path) == depth for path in inner) for depth in range(max(map(len, paths))))
    assert choices["told"]["max_non_leaves_per_layer"] == widest
    written = yaml.safe_load((out / "tensorrt-llm-choices.yaml").read_text())["speculative_config"]
    assert written["eagle_choices"] == paths


def test_choices_are_the_tree_that_a_fit_on_all_prompts_gives(
    tune: Any, run: Run, base: list[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tensors = {f"{head}.1.weight": torch.randn(VOCAB, WIDTH) for head in range(2)}
    blocks = {f"{head}.0.linear.{name}": torch.zeros(shape) for head in range(2) for name, shape in BLOCK.items()}
    heads = save_heads(tmp_path / "heads", tensors | blocks, "medusa_lm_head.safetensors")
    drafter = ["drafter=medusa", f"drafter.path={heads}", "drafter.heads=2"]
    told, _ = tune("tensorrt-llm", 0.001, *drafter)
    best = told["best"]["told"]
    assert best["decoding_type"] == "Medusa" and best["num_medusa_heads"] == 2 and told["best_choices"] is None
    budget = told["best"]["nodes"]
    fitted = run("trees", "fit", "measured", *base, *drafter, f"budget={budget}", "--json")
    assert sorted(best["medusa_choices"]) == sorted(json.loads(fitted.out)["paths"])


def test_a_table_for_vllm_reads_as_its_own_policy_does() -> None:
    told = {"method": "ngram", "num_speculative_tokens": 3}
    sizes = [AtBatch(2, 5), AtBatch(8, 5), AtBatch(16, 3), AtBatch(32, 0)]
    config = ENGINES["vllm"].by_batch(told, sizes)
    assert config is not None
    rows = config["num_speculative_tokens_per_batch_size"]
    assert rows == [[1, 15, 5], [16, 31, 3], [32, 32, 0]] and config["num_speculative_tokens"] == 5
    policy = VllmTable(table=rows)
    policy.check()
    assert [policy.fixed(5, batch) for batch in (1, 2, 8, 15, 16, 31, 32, 99)] == [5, 5, 5, 5, 3, 3, 0, 0]
    assert ENGINES["vllm"].by_batch(told, [AtBatch(1, 0), AtBatch(8, 0)]) is None
    assert ENGINES["sglang"].by_batch(told, sizes) is None


def test_transformers_thresholds_are_replayed(base: list[str]) -> None:
    plan = plan_tune("hf", base)
    told = [plan.engine.told(Setting.of(c), c.pair) for c in plan.combinations.values()]
    pairs = {(one["num_assistant_tokens"], one["assistant_confidence_threshold"]) for one in told}
    assert {(20, 0.4), (4, 0.8), (4, 0.0), (16, 0.0)} <= pairs
    assert all("num_assistant_tokens" not in plan.engine.told(Setting.of(c), c.pair)
               for c in plan_tune("hf", [*base, "drafter=ngram"]).combinations.values())  # fmt: skip


@pytest.mark.parametrize("rule", ["topk", "rejection"])
def test_sampled_rates_are_those_of_single_steps(tune: Any, rule: str) -> None:
    told, _ = tune("vllm", 0.001, "sampling.temperature=0.7", f"acceptance={rule}")
    rates = [rate["value"] for rate in told["acceptance_rates"]]
    assert rates == sorted(rates, reverse=True) and 0 < len(rates) <= told["best"]["depth"]
    assert all(rate["lo"] <= rate["value"] <= rate["hi"] for rate in told["acceptance_rates"] if rate["lo"] is not None)
    if rule == "topk":  # replayed, so of the same texts
        assert sum(rates) <= told["best"]["block_efficiency"]["value"] <= 1 + sum(rates)


def test_rates_by_depth_are_shares_of_steps() -> None:
    accepted = {"a": [2, 0, 1], "b": [0, 3]}
    steps = pd.DataFrame([{"prompt_id": name, "accepted_tokens": n} for name, all in accepted.items() for n in all])
    records = pd.DataFrame({"prompt_id": ["a", "b"], "category": ["x", "x"]})
    rates = by_depth(steps, records)
    assert [rate.value for rate in rates] == pytest.approx([3 / 5, 2 / 5, 1 / 5])
    assert not rates[0].known


@pytest.mark.parametrize(
    ("engine", "more", "said"),
    [
        ("sglnag", [], "--engine sglnag: there is no such engine; did you mean 'sglang'?"),
        ("vllm", ["tree=kary"], "tree=kary has no effect in tune: it tries what --engine vllm can be told"),
        ("vllm", ["budget=4"], "budget=4 has no effect in tune"),
        ("vllm", ["cost.measure=off"], "cost.measure=off: tune needs costs"),
        ("vllm", ["prompts.limit=4"], "tune needs 10 prompts at least"),
        ("hf", ["drafter=suffix"], "drafter=suffix: --engine hf has no such drafter; expected one of model, ngram"),
        ("vllm", ["max_new_tokens=8,12"], "max_new_tokens cannot be swept in tune"),
        (
            "vllm",
            ["sampling.temperature=1", "acceptance=rejection", "sampling.draft_temperature=0.5"],
            "sampling.draft_temperature=0.5: no engine is told of one",
        ),
        ("hf", ["drafter=ngram", "drafter.variant=hf,vllm"], "a drafter's parameters cannot be swept in tune"),
        ("vllm", ["sampling.temperature=0,1"], "one sampling setting at a time is tuned"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(run: Run, base: list[str], engine: str, more: list[str], said: str) -> None:
    refused = run("tune", "--engine", engine, *base, *more)
    assert said in one_line(refused._replace(err=refused.err.replace("loading libraries ...\n", "")))


def test_synthetic_acceptance_counts_the_bonus_where_an_engine_does() -> None:
    rates = [0.9, 0.5, 0.2]
    assert ENGINES["vllm"].synthetic(rates)["synthetic_acceptance_rates"] == rates
    assert ENGINES["sglang"].synthetic(rates)["SGLANG_SIMULATE_ACC_LEN"] == 2.6
    assert ENGINES["tensorrt-llm"].synthetic(rates) == {"TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS": 1.6}
    assert llama_cpp(rates) == "--spec-synthetic-acceptance-rates 0.9000,0.5000,0.2000"


def test_candidates_are_all_an_engine_can_be_told(base: list[str]) -> None:
    plan = plan_tune("sglang", base)
    settings = {Setting.of(combination) for combination in plan.combinations.values()}
    assert {s for s in settings if s.top_k == 1} >= {Setting(n, 1, n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16)}
    assert Setting(5, 4, 7) in settings  # its defaults for Llama
    assert all(s.nodes <= s.top_k + (s.steps - 1) * s.top_k**2 for s in settings)
    assert {Setting.of(c).top_k for c in plan_tune("vllm", base).combinations.values()} == {1}


def test_what_moves_two_settings_of_one_drafter_alike_does_not_tell_them_apart() -> None:
    spread = {"draft_level_s": [[0.08, 0.12]] * 2, "verify_s": [[0.9, 1.1]] * 2}
    curve = CostCurve(
        SIZES, [0.1, 0.1], [1.0, 1.0], 1.0, 0.0, 0.0, 1.0, 1.0, 1, "made up", Circumstances("", 0.0, 1.0, spread)
    )

    def chain(length: int) -> Candidate:
        known = Interval(2.0, 1.9, 2.1)
        return Candidate({}, Setting(length, 1, length), "tiny", known, known, str(length), steps=10.0, drafted=length)

    short, long = moved(curve, chain(2)), moved(curve, chain(6))
    assert len(short) == len(curve.varied) == 4
    assert moved(curve.varied[0], chain(2)).shape == short.shape
    apart = np.linalg.norm(short - long)
    assert 0 < apart < np.linalg.norm(short) < np.hypot(np.linalg.norm(short), np.linalg.norm(long))
    wanted = [chain_s(one, 2) / chain_s(curve, 2) - 1 for one in curve.varied]
    assert short.tolist() == pytest.approx(wanted)


def chain_s(curve: CostCurve, length: int) -> float:
    """Ten steps with a chain, and the prompt."""
    return curve.prefill_s + 10 * curve.step_s(Chain().at(length).topology)


def test_an_answer_that_changed_leaves_no_configuration_behind(tmp_path: Path) -> None:
    assert written_before(tmp_path) == set()
    (tmp_path / "tune.json").write_text(json.dumps({"files": ["vllm-speculative-config.json", "../up"]}))
    assert written_before(tmp_path) == {"vllm-speculative-config.json"}


def test_a_file_by_batch_has_one_drafter() -> None:
    known = Interval(2.0, 1.9, 2.1)

    def at(batch: int, pair: str, nodes: int) -> AtPoint:
        told = {"method": pair, "num_speculative_tokens": nodes}
        one = Candidate(told, Setting(nodes, 1, nodes), pair, known, known, "x", steps=10.0, drafted=nodes)
        return AtPoint(CostPoint(128, batch), one, known)

    assert list(by_batch(ENGINES["vllm"], [at(1, "a", 4), at(8, "a", 2)])) == [
        "vllm-speculative-config-by-batch-context-128.json"
    ]
    assert by_batch(ENGINES["vllm"], [at(1, "a", 4), at(8, "b", 16)]) == {}


def test_heads_are_called_by_their_version(base: list[str], tmp_path: Path) -> None:
    head = echoing_head(tmp_path / "head")
    first = [*base, "drafter=eagle", f"drafter.path={head}"]
    names = {"sglang": "EAGLE", "vllm": "eagle", "tensorrt-llm": "Eagle"}
    for engine, name in names.items():
        plan = plan_tune(engine, first)
        told = [plan.engine.told(Setting.of(c), c.pair) for c in plan.combinations.values()]
        assert all(name in one.values() for one in told)
        assert not any("use_dynamic_tree" in one for one in told)


def test_vllm_is_told_which_ngrams_are_looked_up(base: list[str]) -> None:
    plan = plan_tune("vllm", [*base, "drafter=ngram", "drafter.variant=vllm"])
    told = [plan.engine.told(Setting.of(c), c.pair) for c in plan.combinations.values()]
    assert {(one["prompt_lookup_max"], one["prompt_lookup_min"]) for one in told} == {(5, 1)}
    with pytest.raises(ConfigError, match=r"drafter\.variant=hf: --engine vllm looks up as drafter\.variant=vllm does"):
        plan_tune("vllm", [*base, "drafter=ngram"])
