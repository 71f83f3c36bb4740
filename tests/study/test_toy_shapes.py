"""A new shape is one file and one YAML: toy ones of each sort are planned and replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from support.tiny_models import PairFolders

from specdraft.bench.curve import CostCurve
from specdraft.errors import ConfigError
from specdraft.results.study_tables import read_records
from specdraft.study.plan import plan_study
from specdraft.study.run import run_study
from specdraft.trees import shapes
from specdraft.trees.draft_tree import DraftTree
from specdraft.trees.ranks import PackedRanks
from specdraft.trees.shapes import BestFirstPlan, FittedShape, Limits, StaticPlan, StaticShape
from specdraft.trees.shapes.base import BaseShape, DraftView
from specdraft.trees.topology import RankPath, Topology

CURVE = CostCurve([1, 2, 4, 8, 16], [1e-3] * 5, [5e-3] * 5, 5e-3, 1e-3, 5e-4, 2e-2, 1e-2, 1, "made up")


@dataclass
class Fork(StaticShape):
    """Two chains below one node."""

    kind: str = "fork"

    def layout(self) -> Iterator[RankPath]:
        yield (0,)
        for depth in range(1000):
            yield (0, 0, *(0,) * depth)
            yield (0, 1, *(0,) * depth)


@dataclass
class Steady(FittedShape):
    """A chain of the rank that is right most often."""

    kind: str = "steady"

    def fit(self, node_budget: int, packed: PackedRanks) -> Topology:
        ranks = packed.ranks[(packed.ranks >= 0) & (packed.ranks < self.max_children)]
        best = int(np.bincount(ranks, minlength=1).argmax())
        return Topology.from_paths([(best,) * depth for depth in range(1, node_budget + 1)])


@dataclass
class Shallow(BaseShape):
    """The best nodes of two levels."""

    kind: str = "shallow"

    def limits(self, node_budget: int) -> Limits:
        return Limits(node_budget, min(2, node_budget), node_budget)

    def at(self, node_budget: int) -> BestFirstPlan:
        return BestFirstPlan(node_budget, 2, node_budget)


class Alternating:
    """A plan whose trees are nested in no larger ones: a chain, or its first node."""

    nodes, depth, dynamic = 3, 3, True
    topology: ClassVar[None] = None
    nested: ClassVar[None] = None

    def expand(self, view: DraftView) -> DraftTree:
        raise NotImplementedError


@dataclass
class Moody(BaseShape):
    """Differs from step to step in a way that replay does not know."""

    kind: str = "moody"

    def limits(self, node_budget: int) -> Limits:
        return Limits(3, 3, 1)

    def at(self, node_budget: int) -> Alternating:  # type: ignore[override]
        return Alternating()


@pytest.fixture
def base(tiny_pair_folders: PairFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides, with `--config-dir` at `tmp_path / "configs"`."""
    toys = {toy.kind: toy for toy in (Fork, Steady, Shallow, Moody)}
    known = shapes.registry()
    monkeypatch.setattr(shapes, "registry", lambda: known | toys)
    monkeypatch.setattr("specdraft.study.engines.replay.pair_costs", lambda *given: CURVE)
    monkeypatch.setenv("SPECDRAFT_TRACES", str(tmp_path / "traces"))
    (tmp_path / "configs/tree").mkdir(parents=True)
    for kind in toys:
        (tmp_path / f"configs/tree/{kind}.yaml").write_text(f"kind: {kind}\n")
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": "word " * n}) + "\n" for n in (1, 2, 3, 4)))
    models = [f"pair.{role}.path={path}" for role, path in zip(("target", "draft"), tiny_pair_folders, strict=True)]
    return [*models, "prompts=jsonl", f"prompts.path={tmp_path / 'p.jsonl'}", "max_new_tokens=12"]


def test_toy_shapes_are_planned_and_replayed(base: list[str], tmp_path: Path) -> None:
    plan = plan_study([*base, "tree=fork,steady,shallow", "budget=5"], tmp_path / "configs")
    assert plan.skipped == []
    assert [c.shape.kind for c in plan.combinations] == ["fork", "steady", "shallow", "chain", "hindsight"]
    assert {c.engine for c in plan.combinations} == {"replay"}
    assert [(c.keys["nodes"], c.keys["depth"]) for c in plan.combinations[:3]] == [(5, 3), (5, 5), (5, 2)]
    outcome = run_study(plan, tmp_path / "out")
    assert outcome.failures == []
    records = read_records(outcome.out).set_index(["tree", "prompt_id"])
    assert len(records) == 5 * 4
    live = run_study(
        plan_study([*base, "tree=fork,shallow", "budget=5", "engine=live"], tmp_path / "configs"), tmp_path / "live"
    )
    counts = ["steps", "drafted_tokens", "accepted_tokens", "bonus_tokens", "new_tokens"]
    decoded = read_records(live.out).set_index(["tree", "prompt_id"])[counts]
    assert len(decoded) == 2 * 4
    pd.testing.assert_frame_equal(records.loc[decoded.index, counts], decoded, check_categorical=False)


def test_each_sort_says_what_is_known_before_a_trace(base: list[str], tmp_path: Path) -> None:
    plan = plan_study([*base, "tree=fork,steady,shallow", "budget=5"], tmp_path / "configs")
    fork, steady, shallow = plan.combinations[:3]
    assert fork.topology is not None and fork.topology.paths[1:] == [(0,), (0, 0), (0, 1), (0, 0, 0), (0, 1, 0)]
    assert fork.plan == StaticPlan(fork.topology)
    assert fork.limits == Limits(5, 3, 2)
    assert steady.topology is None and shallow.topology is None
    assert shallow.plan.dynamic and shallow.plan.nested == shallow.plan
    with pytest.raises(ConfigError, match="tree=steady is fitted to traces"):
        steady.plan  # noqa: B018


def test_trees_that_are_not_nested_are_decoded_live(base: list[str], tmp_path: Path) -> None:
    (combination,) = plan_study([*base, "tree=moody", "budget=5"], tmp_path / "configs").combinations
    assert combination.engine == "live"
    with pytest.raises(ConfigError, match=r"tree=moody differs from step to step.*needs engine=live"):
        plan_study([*base, "tree=moody", "budget=5", "engine=replay"], tmp_path / "configs")
