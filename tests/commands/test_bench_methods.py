"""`specdraft bench methods`: on tiny models, with input that cannot be meant, and when it is interrupted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from support.command_line import Run, one_line
from support.tiny_models import PairFolders

from specdraft.bench import methods as turns
from specdraft.commands.options import DONE, SOME_FAILED
from specdraft.config import bundled_config_dir
from specdraft.report.methods import MethodsReport
from specdraft.study import methods as runs
from specdraft.study.method_plan import plan_methods

TINY = """
defaults: [prompts.limit=5, max_new_tokens=8, prompts.chat_template=none, max_prompt_tokens=24]
methods:
  draft model: [drafter=model, tree=chain, budget=2]
  n-gram: [drafter=ngram, tree=chain, budget=3]
  own tree: [drafter=suffix, tree=best_first, budget=4]
  medusa: [drafter=medusa, tree=chain, budget=2]
peers:
  transformers: {}
  assisted: {assisted: true, num_assistant_tokens: 2}
  lookup: {prompt_lookup_num_tokens: 3}
max_rounds: 2
"""


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "bench").mkdir()
    (folder / "bench" / "tiny.yaml").write_text(TINY)
    return folder


@pytest.fixture
def said(configs: Path, tiny_pair_folders: PairFolders, tmp_path: Path) -> list[object]:
    """A benchmark of the tiny pair; what is written goes to `tmp_path/out`."""
    pair = [f"pair.target.path={tiny_pair_folders.target}", f"pair.draft.path={tiny_pair_folders.draft}"]
    where = ["--config-dir", configs, "--out", tmp_path / "out"]
    return ["bench", "methods", "bench=tiny", *pair, "pair.target.device=cpu", "pair.draft.device=cpu", *where]


def test_every_method_has_its_row_beside_plain_decoding_and_the_peers(
    run: Run, said: list[object], tmp_path: Path
) -> None:
    done = run(*said)
    assert done.code == DONE, done.err
    out = tmp_path / "out"
    names = ["autoregressive", "draft model", "n-gram", "own tree", "medusa", "transformers", "assisted", "lookup"]
    summary = pd.read_csv(out / "summary.csv")
    every = summary[summary["texts"] != "loop_share <= 0.3"].set_index("method")
    assert list(every.index) == names
    assert every["reason"].dropna().index.tolist() == ["medusa"]
    assert every.loc["medusa", "reason"].startswith("drafter.path is empty; drafter=medusa needs")
    measured = every.drop("medusa")
    assert (measured["prompts"] == 5).all() and (measured["tokens_per_s"] > 0).all()
    assert (every.loc["autoregressive", "speedup"], every.loc["autoregressive", "block_efficiency"]) == (1.0, 1.0)
    assert every.loc["draft model", "drafted_tokens"] == 2 * every.loc["draft model", "steps"]
    tokens = measured["new_tokens"]
    assert (tokens == tokens["autoregressive"]).all()  # all texts are plain decoding's
    parts = every.loc["draft model", ["prefill_s", "draft_s", "predict_s", "verify_s", "other_s"]].sum()
    assert parts == pytest.approx(every.loc["draft model", "wall_s"], rel=1e-4)
    rows = pd.read_csv(out / "methods.csv")
    assert len(rows) == 2 * 5 * 7 and set(rows["round"]) == {0, 1}
    written = json.loads((out / "benchmark_results.json").read_text())
    assert written["methods"]["n-gram"] == ["drafter=ngram", "tree=chain", "budget=3"]
    assert (written["prompt_count"], written["dtype"], written["device"], written["ties"]) == (5, "float32", "cpu", [])
    assert str(tmp_path.parent) not in str(written)
    for column in (
        "Method",
        "Throughput",
        "Acceptance",
        "per step",
        "Speed-up",
        "draft model",
        "Speed-up by category",
    ):
        assert column in done.out
    assert re.search(r"draft model .*\d \[\d+\.\d+, \d+\.\d+\]", done.out)  # whole, in 80 columns
    assert "medusa: drafter.path is empty; " in done.out
    assert (out / "figures" / "methods.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "methods.html").read_text()
    assert '"draft model"' in page and "specdraftEmbed" in page and 'src="http' not in page
    assert "mark" in (out / "figures" / "methods-by-category.vl.json").read_text()
    panels = json.loads((out / "figures" / "methods.vl.json").read_text())["hconcat"]
    shown = [panels[0]["layer"][2], panels[1]]
    assert [one["encoding"]["y"]["scale"]["domain"] for one in shown] == [[n for n in names if n != "medusa"]] * 2


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("bench=nothing", "bench=nothing: there is no such bench; did you mean 'tiny'?"),
        ("bench.only=[sufix]", "bench.only: there is no method 'sufix'"),
        ("bench.only=[]", "bench.only leaves no method to compare with autoregressive"),
        ("bench.width=0", "bench.width=0.0 is out of range"),
        ("bench.max_rounds=1,2", "one value at a time"),
        ("bench.rounds=3", "bench.rounds is not a key"),
        ("bench.peers.lookup.prompt_lookup_num_tokens=0", "prompt_lookup_num_tokens=0 is out of range"),
        ("bench.peers.lookup.assisted=true", "assisted does not go with prompt_lookup_num_tokens"),
        ("bench.methods.n-gram=['drafter=ngrm']", "bench.methods.n-gram: drafter=ngrm: there is no such drafter"),
        ("bench.methods.n-gram=['drafter=ngram','drafter.num_output_tokens=0']", "num_output_tokens=0 is out of range"),
        ("bench.methods.n-gram=['max_new_tokens=4']", "bench.methods.n-gram: expected drafter, tree"),
        ("drafter=ngram", "drafter=ngram has no effect in bench methods: it belongs to a method"),
        ("sampling=sample", "sampling=sample has no effect in bench methods: texts are greedy"),
        ("repeats=2", "repeats=2 has no effect in bench methods"),
        ("engine=replay", "engine=replay has no effect in bench methods"),
        ("max_new_tokens=0", "max_new_tokens=0 is out of range"),
        ("pair.target.path=nowhere/at/all", "nowhere/at/all"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_nothing_is_written(
    run: Run, said: list[object], tmp_path: Path, override: str, why: str
) -> None:
    line = one_line_but_loading(run, [*said, override])
    assert why in line
    assert not (tmp_path / "out").exists()


def one_line_but_loading(run: Run, arguments: list[object]) -> str:
    done = run(*arguments)
    return one_line(done._replace(err=done.err.removeprefix("loading libraries ...\n")))


def test_what_is_measured_when_it_is_interrupted_is_written(
    run: Run, said: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = turns.Rounds._turn

    def interrupted(self: turns.Rounds, prompt: object, number: int, which: int) -> None:
        if which == 2:
            raise KeyboardInterrupt
        turn(self, prompt, number, which)  # type: ignore[arg-type]

    monkeypatch.setattr(turns.Rounds, "_turn", interrupted)
    monkeypatch.setattr(MethodsReport, "charts", lambda self: {})
    done = run(*said, "bench.only=[n-gram]")
    assert done.code == 130
    assert len(pd.read_csv(tmp_path / "out" / "methods.csv")) == 2 * 2
    assert json.loads((tmp_path / "out" / "benchmark_results.json").read_text())["narrow"] is False


def test_another_text_than_plain_decoding_fails_its_method(
    run: Run, said: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = runs._Ours.__call__

    def other_text(self: runs._Ours, prompt: object) -> turns.Decoded:
        decoded = decode(self, prompt)  # type: ignore[arg-type]
        return decoded._replace(tokens=[(token + 1) % 258 for token in decoded.tokens])

    monkeypatch.setattr(runs._Ours, "__call__", other_text)
    monkeypatch.setattr(MethodsReport, "charts", lambda self: {})
    done = run(*said, "bench.only=[n-gram,lookup]", "bench.max_rounds=1", "prompts.limit=2", "--json")
    assert done.code == SOME_FAILED
    written = json.loads(done.out)
    assert [*dict.fromkeys(row["method"] for row in written["summary"])] == ["autoregressive", "n-gram", "lookup"]
    assert (written["rounds"], written["narrow"]) == (1, False)
    assert done.out == (tmp_path / "out" / "benchmark_results.json").read_text()
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").drop_duplicates("method").set_index("method")
    assert "bug: the text differs from plain greedy decoding at token 0" in summary.loc["n-gram", "reason"]
    assert summary.loc["lookup", "speedup"] > 0


@pytest.mark.parametrize("name", sorted(path.stem for path in (bundled_config_dir() / "bench").glob("methods*.yaml")))
def test_bundled_files_of_methods_can_be_meant(name: str) -> None:
    plan = plan_methods([f"bench={name}", "pair=zoo", "prompts.limit=2"])
    assert len(plan.methods) >= 5 and plan.spec.chosen_peers
    assert (plan.settings.max_new_tokens, len(plan.prompts)) == ({"methods": 64, "methods-smollm2": 48}[name], 2)
    assert plan.prompt_spec.label == {"methods": "bundled", "methods-smollm2": "instruct"}[name]
