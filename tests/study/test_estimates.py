from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.command_line import Run
from support.tiny_models import PairFolders

from specdraft.bench.rate import flops_per_s
from specdraft.models.sizes import model_size
from specdraft.study import estimates as estimates_module
from specdraft.study.estimates import Estimate, duration, estimates
from specdraft.study.plan import StudyPlan, plan_study

PROMPTS = ("Once upon", "x")  # 10 and 2 tokens with <s>
NEW = 8


@pytest.fixture
def chosen(tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A pair on two prompts; the device does 10 operations a second on few tokens, 100 on many."""
    rates = {16: 10.0, 64: 100.0}
    monkeypatch.setattr(estimates_module, "flops_per_s", lambda device, dtype, rows: rates[rows])
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    pair += [f"pair.{role}.device=cpu" for role in ("target", "draft")]
    return [*pair, f"prompts.path={tmp_path / 'p.jsonl'}", f"max_new_tokens={NEW}"]


def one(plan: StudyPlan) -> Estimate:
    (estimate,) = estimates(plan)
    return estimate


class TestOperations:
    @pytest.fixture
    def parameters(self, chosen: list[str]) -> tuple[int, int]:
        files = plan_study([*chosen, "tree=chain", "budget=2"]).combinations[0].pair
        target, draft = (model_size(model).active_parameters for model in files.models)
        return target, draft

    @pytest.mark.parametrize(
        ("grid", "texts", "reads"),
        [
            (["tree=chain,kary", "budget=2,4"], 2, (0, 0)),  # trees cost nothing
            (["tree=best_first", "budget=2,4"], 2, (0, 4 * 2 * NEW)),
            (["tree=chain", "budget=2", "acceptance=recursive", "sampling.temperature=1"], 2, (28, 28)),
        ],
    )
    def test_of_replay(
        self, chosen: list[str], parameters: tuple[int, int], grid: list[str], texts: int, reads: tuple[int, int]
    ) -> None:
        target, draft = parameters
        estimate = one(plan_study([*chosen, *grid]))
        decoded = 2 * target * 2 * NEW
        read = 2 * target * (12 + reads[0]) + 2 * draft * (12 + 2 * NEW + reads[1])
        assert (estimate.texts, estimate.operations) == (texts, (decoded, read))
        assert estimate.record_s == pytest.approx(decoded / 10 + read / 100)

    def test_settings_and_repeats_are_texts_of_their_own(self, chosen: list[str]) -> None:
        grid = ["tree=chain", "budget=2", "acceptance=topk", "sampling.temperature=0.5,1", "repeats=3"]
        assert one(plan_study([*chosen, *grid])).texts == 2 * 2 * 3
        assert one(plan_study([*chosen, "tree=chain", "budget=2", "repeats=3"])).texts == 2

    def test_live_decoding_records_nothing(self, chosen: list[str]) -> None:
        estimate = one(plan_study([*chosen, "tree=chain", "budget=2", "engine=live"]))
        assert (estimate.texts, estimate.operations) == (0, (0, 0))
        assert not any("recording" in line for line in estimate.lines())

    def test_without_a_draft_model(self, chosen: list[str]) -> None:
        plan = plan_study(
            [*(text for text in chosen if not text.startswith("pair.draft")), "drafter=ngram", "tree=chain", "budget=2"]
        )
        assert len(one(plan).weights_bytes) == 1

    def test_bundled_pairs_have_none(self) -> None:
        assert estimates(plan_study(["pair=zoo-tiny", "tree=chain", "budget=2", "prompts.limit=1"])) == []


class TestMemory:
    def test_of_a_batch(self, chosen: list[str]) -> None:
        plan = plan_study([*chosen, "tree=chain", "budget=2"])
        target, draft = map(model_size, plan.combinations[0].pair.models)
        estimate = one(plan)
        assert estimate.weights_bytes == (target.weights_bytes, draft.weights_bytes)
        assert estimate.batch_bytes == 16 * ((10 + NEW) * target.state_bytes + target.logits_bytes)
        assert estimate.refused is None
        assert not any(line.startswith("warning") for line in estimate.lines())

    def test_little_is_free(self, chosen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        plan = plan_study([*chosen, "tree=chain", "budget=2"])
        needed = one(plan).needed_bytes
        monkeypatch.setattr(estimates_module, "free_memory", lambda device: needed)
        assert len(one(plan).lines()) == 2
        monkeypatch.setattr(estimates_module, "free_memory", lambda device: needed - 1)
        assert one(plan).lines()[-1].startswith("warning: target+draft may not fit: ")


def test_a_dry_run_says_it(run: Run, chosen: list[str]) -> None:
    grid = [*chosen, "tree=chain", "budget=2", "--dry-run"]
    lines = [line for line in run("sweep", *grid).out.splitlines() if line.startswith("estimate: target+draft: ")]
    assert len(lines) == 2
    assert " for 16 prompts at once; cpu has " in lines[0]
    assert "recording 2 texts: at least " in lines[1] and " GFLOP/s (16 tokens at once; " in lines[1]
    (estimate,) = json.loads(run("sweep", *grid, "--json").out)["estimates"]
    assert (estimate["pair"], estimate["texts"], estimate["refused"]) == ("target+draft", 2, None)
    assert estimate["record_s"] > 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.123, "0.12 s"), (9.6, "9.6 s"), (42.4, "42 s"), (600, "10 min"), (7200, "2.0 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_rate_of_this_machine() -> None:
    few, many = (flops_per_s(torch.device("cpu"), torch.float32, rows) for rows in (1, 16))
    assert 1e6 < few < 1e15
    assert 1e6 < many < 1e15


def test_the_rate_counts_two_operations_for_each_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []

    def seconds(left: torch.Tensor, right: torch.Tensor) -> float:
        taken.append((left.shape, right.shape))
        return 4.0 - len(taken)  # 3, then 2: the best counts

    monkeypatch.setattr("specdraft.bench.rate._seconds", seconds)
    assert flops_per_s(torch.device("cpu"), torch.float32, 5) == 2 * 5 * 4096 * 4096 / 2.0
    assert taken == [((5, 4096), (4096, 4096))] * 2
