"""Shapes, rules and drafters of installed packages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.tiny_models import PairFolders

from specdraft import acceptance, drafters
from specdraft.config import kinds_in
from specdraft.errors import ConfigError
from specdraft.study.plan import plan_study
from specdraft.trees import shapes

CODE = """
from dataclasses import dataclass
from specdraft.acceptance.greedy import Greedy
from specdraft.drafters.ngram import Ngram
from specdraft.prediction.length import LengthPolicy
from specdraft.prediction.pruning import ScoredPolicy
from specdraft.trees.shapes import StaticShape

@dataclass
class Stairs(StaticShape):
    kind: str = "stairs"
    rank: int = 0

    def layout(self):
        for depth in range(1, 1000):
            yield (self.rank,) * depth

@dataclass
class Chain(StaticShape):
    kind: str = "chain"

@dataclass
class Polite(Greedy):
    kind: str = "polite"

@dataclass
class Half(ScoredPolicy):
    kind: str = "half"
    least: int = 1

    def keep(self, drafted, costs=None):
        return drafted.best(drafted.there.sum(1) // 2 + self.least)

@dataclass
class Pair(LengthPolicy):
    kind: str = "pair"
    k: int = 2

    def fixed(self, budget, batch):
        return min(self.k, budget)

    def begin(self, budget, step_s=None):
        raise NotImplementedError

@dataclass
class Echo(Ngram):
    kind: str = "echo"

plain = 3
"""
Installed = Callable[[str], None]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """Installs a package with these entry points."""
    kinds_in.cache_clear()

    def install(entry_points: str) -> None:
        (tmp_path / "toy_plugin.py").write_text(CODE)
        info = tmp_path / "toy_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("toy_plugin", None)
    kinds_in.cache_clear()


def test_each_kind_of_plugin_is_a_choice(installed: Installed, tiny_pair_folders: PairFolders, tmp_path: Path) -> None:
    installed(
        "[specdraft.shapes]\nstairs = toy_plugin:Stairs\n[specdraft.rules]\npolite = toy_plugin:Polite\n"
        "[specdraft.drafters]\necho = toy_plugin:Echo\n[specdraft.pruning]\nhalf = toy_plugin:Half\n"
        "[specdraft.length]\npair = toy_plugin:Pair\n"
    )
    assert "stairs" in shapes.registry() and "polite" in acceptance.registry() and "echo" in drafters.registry()
    pair = [f"pair.{role}.path={getattr(tiny_pair_folders, role)}" for role in ("target", "draft")]
    overrides = ["tree=stairs,chain", "tree.rank=1,2", "budget=3", "acceptance=polite", "prompts.limit=2"]
    plan = plan_study([*pair, "max_new_tokens=8", "drafter=model,echo", *overrides])
    labels = {(c.keys["tree"], c.keys["drafter"], c.keys["acceptance"]) for c in plan.combinations}
    assert {("stairs-r1", "model", "polite"), ("stairs-r2", "echo", "polite"), ("chain", "echo", "polite")} <= labels
    paths = {c.keys["tree"]: c.topology.paths for c in plan.combinations if c.topology is not None}
    assert paths["stairs-r2"] == [(), (2,), (2, 2), (2, 2, 2)]
    pruned = plan_study([*pair, "tree=chain", "budget=3", "pruning=half", "pruning.least=2", "prompts.limit=2"])
    assert [c.keys["pruning"] for c in pruned.combinations] == ["half-l2"]
    sized = plan_study([*pair, "tree=chain", "budget=4", "length=pair", "length.k=3", "prompts.limit=2"])
    assert [(c.keys["length"], c.keys["nodes"]) for c in sized.combinations] == [("pair-k3", 3)]
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "stairs.yaml").write_text("kind: stairs\nrank: 4\n")  # the user's file goes before
    again = plan_study([*pair, "tree=stairs", "budget=2", "max_new_tokens=8", "prompts.limit=2"], tmp_path)
    (here,) = {c.keys["tree"] for c in again.combinations} - {"chain", "hindsight"}
    assert here == "stairs-r4"


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        ("x = toy_plugin:nothing", r"entry point x of specdraft.shapes \(toy_plugin:nothing\) cannot be loaded"),
        ("x = no_such_module:X", "cannot be loaded: ModuleNotFoundError"),
        ("x = toy_plugin:plain", "expected a dataclass with a kind"),
        ("x = toy_plugin:Chain", "its kind 'chain' is already that of specdraft.trees.shapes.chain"),
    ],
)
def test_a_plugin_that_is_none_is_one_line(installed: Installed, entry_point: str, message: str) -> None:
    installed(f"[specdraft.shapes]\n{entry_point}\n")
    with pytest.raises(ConfigError, match=message):
        shapes.registry()
