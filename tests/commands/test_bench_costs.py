"""`specdraft bench costs`: on tiny models, and tables of costs that studies take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.command_line import Run, one_line
from support.tiny_models import PairFolders

from specdraft.bench import measuring
from specdraft.commands.options import DONE
from specdraft.models.language_model import LanguageModel
from specdraft.study import cost_bench


@pytest.fixture
def pair(tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    monkeypatch.setattr(measuring, "MOST", 1)
    where = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    return [*where, "pair.name=tiny", "pair.target.device=cpu", "pair.draft.device=cpu"]


@pytest.fixture(scope="module")
def measured() -> list[str]:
    """The table, once it is measured."""
    return []


@pytest.fixture
def table(run: Run, pair: list[str], measured: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "costs.json"
    if not measured:
        done = run("bench", "costs", *pair, "budget=4", "cost.context=16,32", "cost.batch=1,3", "--out", path)
        assert done.code == DONE, done.err
        measured.append(path.read_text())
    path.write_text(measured[0])
    return path


def test_estimates_beside_live_decoding(run: Run, pair: list[str], tmp_path: Path) -> None:
    few = ["prompts.limit=2", "max_new_tokens=6", "prompts.chat_template=none", "max_prompt_tokens=24"]
    done = run("bench", "costs", *pair, *few, "--validate", "--out", tmp_path / "costs.json", "--json")
    assert done.code == DONE, done.err
    told = json.loads(done.out)
    rows = pd.read_csv(tmp_path / "costs.csv")
    assert len(rows) == 18 and set(rows["budget"]) == {4, 8, 16}
    assert rows["error"].tolist() == pytest.approx((rows["est_speedup"] / rows["speedup"] - 1).tolist(), abs=1e-4)
    assert told["mean_error"] == pytest.approx(rows["error"].abs().mean(), abs=1e-4)
    assert abs(told["worst_error"]) == pytest.approx(rows["error"].abs().max(), abs=1e-4)
    assert told["costs"][0]["sizes"][-1] == 65


def test_a_batch_is_validated_in_batches(run: Run, pair: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The target reads all texts of it at once, with a tree and without."""
    shapes, live = set[tuple[int, ...]](), False
    forward, decode = LanguageModel.forward, cost_bench.Live.decode

    def noting(model: LanguageModel, token_ids: Any, *given: Any, **more: Any) -> Any:
        shapes.update([tuple(token_ids.shape)] if live else [])
        return forward(model, token_ids, *given, **more)

    def decoding(*given: Any) -> None:
        nonlocal live
        live = True
        decode(*given)
        live = False

    monkeypatch.setattr(LanguageModel, "forward", noting)
    monkeypatch.setattr(cost_bench.Live, "decode", decoding)
    few = ["prompts.limit=2", "max_new_tokens=6", "prompts.chat_template=none", "max_prompt_tokens=24"]
    done = run("bench", "costs", *pair, *few, "drafter=ngram", "cost.batch=3", "--validate", "--json")
    assert done.code == DONE, done.err
    assert json.loads(done.out)["costs"][0]["batch"] == 3
    assert {(3, 1), (3, 5)} <= shapes and all(rows == 1 for rows, tokens in shapes if tokens > 17)


def test_the_table_has_every_point(table: Path) -> None:
    known = json.loads(table.read_text())
    points = [(curve["context"], curve["batch"]) for curve in known["curves"]]
    assert points == [(16, 1), (16, 3), (32, 1), (32, 3)]
    assert all(curve["sizes"] == [1, 2, 4, 5] for curve in known["curves"])


def test_a_study_estimates_by_a_table_for_each_point(run: Run, pair: list[str], table: Path, tmp_path: Path) -> None:
    known = json.loads(table.read_text())
    for number, curve in enumerate(known["curves"]):  # another machine's: it says so
        curve |= {"device": "Elsewhere 9000", "plain_s": 1.0, "verify_s": [2.0 + number] * 4, "other_s": 0.0}
        curve |= {
            "draft_level_s": [0.0] * 4,
            "draft_begin_s": 0.0,
            "prefill_s": 1.0,
            "target_prefill_s": 1.0,
            "measured": None,
        }
    table.write_text(json.dumps(known))
    grid = ["tree=chain", "budget=2", "prompts.limit=2", "max_new_tokens=6", "prompts.chat_template=none"]
    grid += ["max_prompt_tokens=24", "report=false", f"cost.table={table}", "cost.context=16,32", "cost.batch=1,3"]
    done = run("sweep", *pair, *grid, "--out", tmp_path / "study")
    assert done.code == DONE, done.err
    assert "note: cost.table=costs.json: times are estimated for Elsewhere 9000, " in done.err
    rows = pd.read_csv(tmp_path / "study" / "summary.csv")
    chains = rows[rows["tree"] == "chain"].set_index(["cost_context", "cost_batch"])
    assert list(chains.index) == [(16, 1), (16, 3), (32, 1), (32, 3)]
    assert chains["block_efficiency"].nunique() == 1 and rows["combination"].is_unique
    for number, row in enumerate(chains.itertuples()):
        spent = row.new_tokens / row.est_tokens_per_s
        assert spent == pytest.approx(2 * 1.0 + row.steps * (2.0 + number), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target_weights": "0" * 16}, "is of another target (tiny: target weights"),
        ({"draft_weights": "0" * 16}, "is of another draft (tiny: draft weights"),
        ({"drafter": {"kind": "ngram"}}, "is of another drafter (tiny: drafter"),
        ({"kind": "something"}, "is no table of costs; expected what specdraft bench costs --out FILE writes"),
        ({"curves": []}, "is no table of costs"),
    ],
)
def test_a_table_that_does_not_fit(run: Run, pair: list[str], table: Path, change: dict[str, Any], said: str) -> None:
    table.write_text(json.dumps(json.loads(table.read_text()) | change))
    line = one_line(run("sweep", *pair, "tree=chain", "budget=2", f"cost.table={table}", "cost.context=16"))
    assert line.startswith(f"error: cost.table={table}: ") and said in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plain_s": "fast"}, 'plain_s is "fast"; expected seconds, 0 or more'),
        ({"plain_s": -1.0}, "plain_s is -1.0; expected seconds, 0 or more"),
        ({"other_s": float("nan")}, "other_s is NaN; expected seconds, 0 or more"),
        ({"batch": 0}, "batch is 0; expected a whole number, 1 or more"),
        ({"verify_s": None}, "verify_s is null; expected a list of numbers, 0 or more"),
        ({"verify_s": [0.1, 0.2]}, "verify_s has 2 values; expected one for each of the 4 sizes"),
        ({"sizes": [5, 4, 2, 1]}, "sizes is [5, 4, 2, 1]; expected two numbers of tokens or more, ascending"),
        ({"sizes": [1], "verify_s": [0.1], "draft_level_s": [0.1]}, "sizes is [1]; expected two numbers"),
        ({"measured": {"quartiles": []}}, "is no table of costs"),
        ({"measured": {"quartiles": {"verify_s": [[1]]}}}, "quartiles of verify_s are [[1]]; expected 4 times a lower"),
    ],
)
def test_a_table_with_numbers_that_no_cost_can_have(
    run: Run, pair: list[str], table: Path, change: dict[str, Any], said: str
) -> None:
    known = json.loads(table.read_text())
    if isinstance(change.get("measured"), dict):
        change = {"measured": known["curves"][0]["measured"] | change["measured"]}
    known["curves"][0] |= change
    table.write_text(json.dumps(known))
    line = one_line(run("sweep", *pair, "tree=chain", "budget=2", f"cost.table={table}", "cost.context=16"))
    assert line.startswith(f"error: cost.table={table}: {said}")


def test_other_input_that_cannot_be_meant(run: Run, pair: list[str], table: Path, tmp_path: Path) -> None:
    def line(*said: object) -> str:
        return one_line(run(*said))

    sweep = ("sweep", *pair, "tree=chain", "budget=2")
    assert "has no costs at context 64, batch 1; it has those at context 16, batch 1, at" in line(
        *sweep, f"cost.table={table}", "cost.context=64"
    )
    assert "cost.table=gone.json: cannot be read: No such file" in line(*sweep, "cost.table=gone.json")
    assert "cost.measure=again has no effect with cost.table" in line(
        *sweep, f"cost.table={table}", "cost.measure=again"
    )
    assert line(*sweep, "cost.batch=0") == "error: cost.batch=0 is out of range; expected 1 or more"
    assert line(*sweep, "cost.context=-5") == "error: cost.context=-5 is out of range; expected 1 or more"
    assert "cost.context=99999 cost.batch=1: with 3 tokens of a tree it exceeds the context of" in line(
        *sweep, "cost.context=99999"
    )
    assert "cost.batch=100000000: caches and logits take" in line(*sweep, "cost.batch=100000000")
    assert "cost.batch=2 has no effect: nothing is replayed" in line(*sweep, "cost.batch=2", "engine=live")
    assert "budget=0 is not a node budget; expected a whole number" in line("bench", "costs", *pair, "budget=0")
    assert "tree=chain has no effect in bench costs" in line("bench", "costs", *pair, "tree=chain")
    assert "prompts.limit=3 has no effect in bench costs: only --validate" in line(
        "bench", "costs", *pair, "prompts.limit=3"
    )
    assert "--out" in line("bench", "costs", *pair, "--out", tmp_path / "costs.txt")
