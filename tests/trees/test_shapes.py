from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import ClassVar

import pytest

from specdraft.errors import ConfigError
from specdraft.trees.shapes import Limits, StaticShape, is_reference, registry
from specdraft.trees.shapes.base import MAX_BUDGET, StaticPlan
from specdraft.trees.shapes.beam import Beam
from specdraft.trees.shapes.branching import Branching
from specdraft.trees.shapes.chain import Chain
from specdraft.trees.shapes.kary import Kary
from specdraft.trees.shapes.measured import Hindsight, Measured
from specdraft.trees.shapes.paths import Paths
from specdraft.trees.shapes.published import Published, published_trees
from specdraft.trees.shapes.wide import Wide
from specdraft.trees.topology import Topology

FREE = [
    Chain(),
    Wide(),
    Kary(),
    Kary(k=1),
    Kary(k=4),
    Branching(),
    Branching(factors=[3]),
    Branching(factors=[1, 3, 2]),
    Beam(),
    Beam(width=5),
]


def paths(shape: StaticShape, budget: int) -> list[tuple[int, ...]]:
    return shape.at(budget).topology.paths[1:]


@pytest.mark.parametrize(
    ("shape", "budget", "expected"),
    [
        (Chain(), 1, "0"),
        (Chain(), 3, "0 00 000"),
        (Wide(), 1, "0"),
        (Wide(), 4, "0 1 2 3"),
        (Kary(), 5, "0 1 00 01 10"),
        (Kary(), 7, "0 1 00 01 10 11 000"),
        (Kary(k=3), 5, "0 1 2 00 01"),
        (Kary(k=1), 3, "0 00 000"),
        (Branching(factors=[2, 1]), 7, "0 1 00 10 000 100 0000"),
        (Branching(factors=[1, 3]), 6, "0 00 01 02 000 001"),
        (Branching(), 9, "0 1 2 3 00 01 10 11 20"),
        (Beam(), 5, "0 1 00 10 000"),
        (Beam(width=3), 8, "0 1 2 00 10 20 000 100"),
        (Beam(width=3), 2, "0 1"),
        (Beam(width=1), 3, "0 00 000"),
    ],
)
def test_a_layout_is_breadth_first_and_beams_deepen_in_turn(shape: StaticShape, budget: int, expected: str) -> None:
    assert ["".join(map(str, path)) for path in paths(shape, budget)] == expected.split()


def test_the_third_level_of_the_default_branching_tree_has_single_children() -> None:
    plan = Branching().at(4 + 8 + 8 + 8)
    assert [len(level.nodes) for level in plan.topology.levels] == [4, 8, 8, 8]


@pytest.mark.parametrize("shape", FREE, ids=lambda s: s.label)
def test_a_growing_budget_only_adds_nodes(shape: StaticShape) -> None:
    largest = paths(shape, 60)
    for budget in range(1, 60):
        plan = shape.at(budget)
        assert plan.topology.paths[1:] == largest[:budget]
        assert plan.nodes == budget
        assert plan.depth == max(map(len, largest[:budget]))
        assert plan.topology.sibling_closed


@pytest.mark.parametrize("shape", FREE, ids=lambda s: s.label)
def test_nodes_are_listed_depth_by_depth(shape: StaticShape) -> None:
    lengths = [len(path) for path in islice(shape.layout(), 60)]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("budget", [0, -1, MAX_BUDGET + 1, 2.0, True, "4"])
@pytest.mark.parametrize(
    "shape", [Chain(), Wide(), Kary(), Branching(), Beam(), Paths(paths=[[0]]), Published()], ids=lambda s: s.kind
)
def test_what_is_no_node_budget_is_refused(shape: StaticShape, budget: int) -> None:
    with pytest.raises(ConfigError, match=f"budget={budget} "):
        shape.at(budget)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Kary(k=0), "tree.k=0 is out of range for kary"),
        (Beam(width=-1), "tree.width=-1 is out of range for beam"),
        (Branching(factors=[]), r"tree.factors=\[\]"),
        (Branching(factors=[2, 0]), r"tree.factors=\[2, 0\]"),
        (Paths(), "tree.paths is empty"),
        (
            Published(name="medusa/mc_sim_7b_64"),
            r"tree.name='medusa/mc_sim_7b_64' .* did you mean 'medusa/mc_sim_7b_63'\?",
        ),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(shape: StaticShape, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shape.at(4)


def test_a_layout_that_ends_too_early_does_not_fit_the_budget() -> None:
    class Short(StaticShape):
        def layout(self) -> object:
            return iter([(0,), (1,)])

    assert Short("short").at(2).nodes == 2
    with pytest.raises(ConfigError, match="tree short has only 2 nodes; budget=3 does not fit"):
        Short("short").at(3)


@pytest.mark.parametrize("budget", [1, 3, 500])
def test_shapes_with_a_size_of_their_own_ignore_the_budget(budget: int) -> None:
    written = Paths(paths=[[0, 0], [0], [2]])
    assert written.sized
    assert written.at(budget).topology == Topology.from_paths([(0,), (2,), (0, 0)])
    assert Published.sized
    assert Published().at(budget).nodes == 63


@pytest.mark.parametrize(
    ("listed", "message"), [([[0], [0]], "listed twice"), ([[1, 0]], "has no parent"), ([[]], "not a rank path")]
)
def test_written_paths_that_are_no_tree_are_refused(listed: list[list[int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Paths(paths=listed).at(1)


class TestPathsInAFile:
    LISTED: ClassVar = [[0], [1], [0, 0]]

    def in_file(self, folder: Path, content: object, name: str = "tree.json") -> Paths:
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return Paths(file=str(folder / name))

    def test_a_list_or_an_object_that_has_one(self, tmp_path: Path) -> None:
        said = Paths(paths=self.LISTED)
        for name, content in (("a", self.LISTED), ("b.json", {"tree": "sequoia", "paths": self.LISTED})):
            read = self.in_file(tmp_path, content, name)
            assert read.at(1).topology == said.at(1).topology
            assert (read.label, read.identity()) == (said.label, said.identity())
            assert read.limits(1) == Limits(3, 2, 2)
        assert set(said.identity()) == {"kind", "paths"}  # what decides, not where it was read

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[[0], [1", "not JSON"),
            ({"tree": "chain"}, "holds no rank paths"),
            ({"paths": []}, "holds no rank paths"),
            ([0, 1], "holds no rank paths"),
            ([[0.5]], "holds no rank paths"),
            ([[True]], "holds no rank paths"),
            ('"text"', "holds no rank paths"),
            ([[1, 0]], "has no parent"),
            ([[0], [0]], "listed twice"),
            ([[-1]], "not a rank path"),
        ],
    )
    def test_what_holds_no_tree_is_refused(self, tmp_path: Path, content: object, message: str) -> None:
        with pytest.raises(ConfigError, match=rf"^tree\.file=.*tree\.json: .*{message}"):
            self.in_file(tmp_path, content).limits(1)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"tree\.file=.*nowhere: cannot be read: No such file"):
            Paths(file=str(tmp_path / "nowhere")).at(1)
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            Paths(file=str(tmp_path)).at(1)

    def test_one_place_only(self, tmp_path: Path) -> None:
        read = self.in_file(tmp_path, self.LISTED)
        with pytest.raises(ConfigError, match=r"tree\.paths and tree\.file are both given"):
            Paths(paths=self.LISTED, file=read.file).at(1)


@pytest.mark.parametrize("name", sorted(published_trees()))
def test_a_published_tree_has_its_stated_nodes_and_depth(name: str) -> None:
    stated, plan = published_trees()[name], Published(name=name).at(1)
    assert (plan.nodes, plan.depth) == (stated["nodes"], stated["depth"])
    assert {tuple(path) for path in stated["paths"]} == set(plan.topology.paths[1:])
    assert {"repo", "path", "commit"} <= set(stated["source"])


@pytest.mark.parametrize(("name", "label", "nodes", "depth"), [("medusa", "medusa", 63, 4), ("eagle", "eagle", 25, 5)])
def test_the_two_best_known_trees(name: str, label: str, nodes: int, depth: int) -> None:
    shape = Published(name=f"{name}/mc_sim_7b_63")
    plan = shape.at(1)
    assert (shape.label, plan.nodes, plan.depth) == (label, nodes, depth)
    assert plan.topology.sibling_closed
    assert not plan.topology.is_chain


@pytest.mark.parametrize(
    ("shape", "label"),
    [
        (Chain(), "chain"),
        (Wide(), "wide"),
        (Kary(), "kary"),
        (Kary(k=3), "kary-k3"),
        (Beam(width=2), "beam"),
        (Beam(width=3), "beam-w3"),
        (Branching(), "branching"),
        (Branching(factors=[3, 2]), "branching-f3x2"),
        (Published(), "medusa"),
        (Published(name="medusa/zephyr_stage2"), "medusa/zephyr_stage2"),
    ],
)
def test_a_label_is_the_kind_and_what_differs_from_its_defaults(shape: StaticShape, label: str) -> None:
    assert shape.label == label


def test_the_label_of_written_paths_depends_on_the_nodes_only() -> None:
    label = Paths(paths=[[0], [1], [0, 0]]).label
    assert label.startswith("paths-")
    assert label == Paths(paths=[[1], [0], [0, 0]]).label
    assert label != Paths(paths=[[0], [1], [1, 0]]).label


def test_every_shape_is_registered_under_its_kind() -> None:
    shapes = registry()
    assert {"chain", "wide", "kary", "branching", "beam", "paths", "published"} <= set(shapes)
    assert all(shape().kind == kind for kind, shape in shapes.items())


def test_hindsight_is_the_only_reference_whatever_its_parameters() -> None:
    assert {kind for kind, shape in registry().items() if shape.reference} == {"hindsight"}
    assert is_reference(Hindsight().label) and is_reference(Hindsight(max_depth=4).label)
    assert not is_reference(Measured(max_depth=4).label)
    assert not any(map(is_reference, ["", "hindsights", "kary-hindsight", "a shape of another version"]))


@pytest.mark.parametrize("shape", FREE, ids=lambda s: s.label)
def test_limits_are_those_of_the_tree(shape: StaticShape) -> None:
    for budget in (1, 4, 30):
        topology = shape.at(budget).topology
        assert shape.limits(budget) == (budget, topology.depth, max(map(len, topology.children)))


def test_limits_of_trees_that_are_not_known_yet() -> None:
    known = registry()
    assert known["best_first"]().limits(30) == (30, 8, 16)
    assert known["best_first"]().limits(3) == (3, 3, 3)
    assert known["sequoia"]().limits(40) == (40, 32, 16)
    assert known["sequoia"]().limits(40).room == 40
    assert Limits(100, 3, 2).room == 2 + 4 + 8
    for kind in ("best_first", "sequoia", "measured", "hindsight"):
        with pytest.raises(ConfigError, match="budget=0"):
            known[kind]().limits(0)


def test_which_shapes_are_fitted_and_which_do_not_compete() -> None:
    known = registry()
    assert {kind for kind, shape in known.items() if shape.fitted} == {"measured", "sequoia", "hindsight"}
    assert {kind for kind, shape in known.items() if shape.in_sample} == {"hindsight"}
    assert {kind for kind, shape in known.items() if shape.reference} == {"hindsight"}
    assert [is_reference(tree) for tree in ("hindsight", "hindsight-md3", "hindsights", "chain")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_plan_grows_its_tree_one_level_at_a_time() -> None:
    class View:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def grow(self, topology: Topology, depth: int) -> None:
            self.calls.append(depth)

        def finish(self, topology: Topology) -> str:
            self.calls.append("finish")
            return "tree"

    view = View()
    plan = StaticPlan(Topology.from_paths([(0,), (1,), (0, 0), (0, 0, 0)]))
    assert plan.expand(view) == "tree"  # type: ignore[arg-type, comparison-overlap]
    assert view.calls == [1, 2, 3, "finish"]
