"""A small study with its steps, run once."""

from __future__ import annotations

from pathlib import Path

import pytest

from specdraft.study.plan import plan_study
from specdraft.study.run import run_study

GRID = ["name=small", "pair=zoo-tiny", "tree=chain,kary", "budget=2,4", "prompts.limit=8", "max_new_tokens=24",
        "output.steps=true", "cost.measure=off", "report=false"]  # fmt: skip


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Replayed greedily, with every step. Do not write into it."""
    folder = tmp_path_factory.mktemp("exchange") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECDRAFT_TRACES", str(tmp_path_factory.mktemp("traces-of-exchange")))
        run_study(plan_study(GRID), folder)
    return folder
