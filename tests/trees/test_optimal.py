from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from math import isclose, prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdraft.cli import main
from specdraft.errors import ConfigError
from specdraft.trees.optimal import BestTree, best_tree, check_acceptance, path_weights
from specdraft.trees.topology import RankPath, Topology

Command = Callable[..., tuple[object, str, str]]  # arguments -> exit code, stdout, stderr

# out of 667: Sequoia's demo acceptance vector, of which 49 are no child at all
SEQUOIA = (423, 72, 38, 15, 13, 10, 3, 2, 8, 3, 5, 3, 4, 2, 1, 2, 1, 2, 0, 2, 2, 2, 0, 1, 0, 1, 0, 0, 0, 1, 1, 1)
DEMO = np.array(SEQUOIA) / 667
MISLEADING = [0.3, 0.05, 0.6]  # rank 2 is the best child, behind the worst one


def weight(path: RankPath, acceptance: np.ndarray) -> float:
    rows = np.atleast_2d(acceptance)
    return prod(float(rows[min(d, len(rows) - 1), rank]) for d, rank in enumerate(path))


def grown(tree: frozenset[RankPath], ranks: int, levels: int, width: int, free: bool) -> list[RankPath]:
    """The nodes that may be added to a tree."""
    new = []
    for parent in [(), *tree]:
        taken = {path[-1] for path in tree if path[:-1] == parent}
        if len(parent) < levels and len(taken) < width:
            new += [(*parent, rank) for rank in range(ranks) if rank not in taken and (free or rank == len(taken))]
    return new


@cache
def every_tree(nodes: int, ranks: int, levels: int, width: int, free: bool = False) -> frozenset[frozenset[RankPath]]:
    if nodes == 0:
        return frozenset([frozenset()])
    smaller = every_tree(nodes - 1, ranks, levels, width, free)
    return frozenset(tree | {new} for tree in smaller for new in grown(tree, ranks, levels, width, free))


def by_brute_force(
    acceptance: np.ndarray, budget: int, max_depth: int | None, max_children: int | None, free: bool
) -> tuple[int, float]:
    """The size and the value of the best tree of `budget` nodes, or of as many as there is room for."""
    ranks = acceptance.shape[-1]
    levels = min(max_depth or budget, len(acceptance) if acceptance.ndim == 2 else budget)
    width = max_children or ranks
    nodes = max(n for n in range(budget + 1) if every_tree(n, ranks, levels, width, free))
    return nodes, max(
        sum(weight(path, acceptance) for path in tree) for tree in every_tree(nodes, ranks, levels, width, free)
    )


def by_greedy_growth(acceptance: np.ndarray, budget: int) -> float:
    tree: frozenset[RankPath] = frozenset()
    for _ in range(budget):
        tree |= {
            max(
                grown(tree, len(acceptance), budget, len(acceptance), free=False),
                key=lambda path: weight(path, acceptance),
            )
        }
    return sum(weight(path, acceptance) for path in tree)


def random_acceptance(rng: np.random.Generator, ranks: int, as_matrix: bool) -> np.ndarray:
    """Rows in any order, often with zeros, often with nothing left over."""
    shape = (int(rng.integers(1, 5)), ranks) if as_matrix else (ranks,)
    probs = rng.dirichlet(np.full(ranks, 0.7), size=shape[:-1]) * rng.choice([0.5, 0.9, 1.0])
    return np.where(rng.random(shape) < 0.2, 0.0, probs)


def check_legal(
    tree: BestTree, acceptance: np.ndarray, max_depth: int | None, max_children: int | None, free: bool
) -> None:
    topology = Topology.from_paths(tree.paths)
    assert topology.paths[1:] == tree.paths  # parents first, depth by depth
    assert topology.num_nodes == tree.nodes == len(tree.paths)
    assert topology.depth == tree.depth
    assert free or topology.sibling_closed
    assert topology.depth <= min(max_depth or tree.nodes, len(acceptance) if acceptance.ndim == 2 else tree.nodes)
    assert max(map(len, topology.children)) <= (max_children or acceptance.shape[-1])
    assert isclose(tree.expected_accepted, sum(weight(path, acceptance) for path in tree.paths), abs_tol=1e-12)


@pytest.mark.parametrize(
    ("size", "tokens"), [(2, 1.6342), (4, 2.2914), (8, 2.7322), (16, 3.1303), (32, 3.5007), (64, 3.8523), (128, 4.1921)]
)
def test_sequoias_table(size: int, tokens: float) -> None:
    """Sizes and the limit of 10 levels count the root; tokens count the bonus. Size 1 is a bare root: no budget."""
    tree = best_tree(DEMO, size - 1, max_depth=9)
    assert round(1 + tree.expected_accepted, 4) == tokens
    assert tree.filled
    check_legal(tree, DEMO, 9, None, free=False)


@pytest.mark.parametrize("free", [False, True], ids=["closed", "free"])
@pytest.mark.parametrize("seed", range(150))
def test_no_tree_is_better(seed: int, free: bool) -> None:
    rng = np.random.default_rng(seed)
    acceptance = random_acceptance(rng, ranks=int(rng.integers(1, 4 if free else 5)), as_matrix=seed % 2 == 1)
    max_depth, max_children = (None if rng.random() < 0.4 else int(rng.integers(1, 5)) for _ in range(2))
    budget = int(rng.integers(1, 6 if free else 9))
    tree = best_tree(acceptance, budget, max_depth=max_depth, max_children=max_children, free_ranks=free)
    nodes, value = by_brute_force(acceptance, budget, max_depth, max_children, free)
    assert tree.nodes == nodes
    assert tree.filled == (nodes == budget)
    assert isclose(tree.expected_accepted, value, rel_tol=1e-12, abs_tol=1e-15)
    check_legal(tree, acceptance, max_depth, max_children, free)


@pytest.mark.parametrize("seed", range(20))
def test_one_row_for_each_depth_equals_one_row_for_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vector, budget = random_acceptance(rng, 6, as_matrix=False), 40
    value = best_tree(vector, budget).expected_accepted
    assert isclose(value, best_tree(np.tile(vector, (budget, 1)), budget).expected_accepted, rel_tol=1e-12)
    for depth in (3, 8, budget):
        by_vector, by_matrix = (
            best_tree(vector, budget, max_depth=depth),
            best_tree(np.tile(vector, (depth, 1)), budget),
        )
        assert isclose(by_vector.expected_accepted, by_matrix.expected_accepted, rel_tol=1e-12)
        assert by_vector.expected_accepted <= value * (1 + 1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(1, 20))
def test_greedy_growth_is_optimal_when_acceptance_falls_with_rank(scores: list[float], budget: int) -> None:
    acceptance = np.sort(scores)[::-1] / max(1, sum(scores))
    grown_value = by_greedy_growth(acceptance, budget)
    assert isclose(best_tree(acceptance, budget).expected_accepted, grown_value, rel_tol=1e-9, abs_tol=1e-12)
    assert isclose(
        best_tree(acceptance, budget, free_ranks=True).expected_accepted, grown_value, rel_tol=1e-9, abs_tol=1e-12
    )


def test_greedy_growth_misses_a_good_child_behind_a_bad_one() -> None:
    assert by_greedy_growth(np.array(MISLEADING), 3) == pytest.approx(0.3 + 0.09 + 0.05)
    tree = best_tree(MISLEADING, 3)
    assert tree.paths == [(0,), (1,), (2,)]
    assert tree.expected_accepted == pytest.approx(0.95)


def test_free_ranks_leave_the_bad_child_out() -> None:
    tree = best_tree(MISLEADING, 3, free_ranks=True)
    assert tree.paths == [(0,), (2,), (2, 2)]
    assert tree.expected_accepted == pytest.approx(0.3 + 0.6 + 0.36)
    assert best_tree(MISLEADING, 3, max_children=1).paths == [(0,), (0, 0), (0, 0, 0)]
    assert best_tree(MISLEADING, 3, max_children=1, free_ranks=True).paths == [(2,), (2, 2), (2, 2, 2)]


@pytest.mark.parametrize(
    ("acceptance", "budget", "expected"),
    [([0.0, 0.0, 0.0], 5, "0 1 2 00 01"), ([0.5, 0.5], 4, "0 1 00 01"), ([0.0, 1.0], 3, "1 11 111")],
)
def test_equal_weights_go_to_the_shallower_node_then_by_path(
    acceptance: list[float], budget: int, expected: str
) -> None:
    tree = best_tree(acceptance, budget, free_ranks=True)
    assert ["".join(map(str, path)) for path in tree.paths] == expected.split()


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(
    ("acceptance", "limits", "room", "value"),
    [
        ([0.5, 0.1], {"max_depth": 2}, 6, 0.6 + 0.36),
        ([0.5, 0.1, 0.1], {"max_depth": 2, "max_children": 2}, 6, 0.6 + 0.36),
        ([0.5], {"max_depth": 3}, 3, 0.875),
        ([[0.2, 0.2, 0.2]], {}, 3, 0.6),
        ([[0.5, 0.0], [1.0, 0.0]], {}, 6, 1.0),
        ([[0.5, 0.0], [1.0, 0.0]], {"max_depth": 5, "max_children": 1}, 2, 1.0),
    ],
)
def test_what_does_not_fit_gives_the_largest_tree(
    acceptance: list[float], limits: dict[str, int], room: int, value: float, free: bool
) -> None:
    for budget in range(1, room + 4):
        tree = best_tree(acceptance, budget, **limits, free_ranks=free)
        assert tree.nodes == min(budget, room)
        assert tree.filled == (budget <= room)
    assert tree.expected_accepted == pytest.approx(value)


@pytest.mark.parametrize("acceptance", [[0.0], [0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 1.0]])
def test_ranks_that_are_never_accepted_still_fill_the_budget(acceptance: list[float]) -> None:
    for budget in (1, 2, 9, 30):
        tree = best_tree(acceptance, budget)
        assert (tree.nodes, tree.filled) == (budget, True)


def test_closed_forms() -> None:
    always, never = best_tree([1.0], 7), best_tree([0.0] * 3, 7, max_depth=2)
    assert (always.paths[-1], always.expected_accepted, always.depth) == ((0,) * 7, 7.0, 7)
    assert (never.nodes, never.expected_accepted) == (7, 0.0)
    alpha = 0.8
    assert best_tree([alpha], 5).expected_accepted == pytest.approx((1 - alpha**6) / (1 - alpha) - 1)


def test_weights_of_paths() -> None:
    paths = [(0,), (1,), (1, 0), (1, 0, 1)]
    assert path_weights(paths, np.array([0.5, 0.25])) == {(0,): 0.5, (1,): 0.25, (1, 0): 0.125, (1, 0, 1): 0.03125}
    assert path_weights(paths[:3], np.array([[0.5, 0.25], [1.0, 0.0]])) == {(0,): 0.5, (1,): 0.25, (1, 0): 0.25}


BAD_ACCEPTANCE = [
    ([], "one or more probabilities"),
    ([[]], "one or more probabilities"),
    (0.5, "one or more probabilities"),
    ([[[0.5]]], "one or more probabilities"),
    (["0.5"], "one or more probabilities"),
    ([True], "one or more probabilities"),
    ([0.5, None], "one or more probabilities"),
    ([[0.5, 0.1], [0.5]], "the rows differ in length"),
    ([0.5, -0.1], "rank 1 has -0.1; expected a probability from 0 to 1"),
    ([1.5], "rank 0 has 1.5"),
    ([0.5, float("nan")], "rank 1 has nan"),
    ([[0.5, 0.1], [0.5, float("inf")]], "depth 2: rank 1 has inf"),
    ([0.9, 0.2], "the probabilities sum to 1.1; expected at most 1"),
    ([[0.5, 0.1], [0.9, 0.2]], "depth 2: the probabilities sum to 1.1"),
    ([1.0, 1.1e-6], "sum to 1.000001"),
]


@pytest.mark.parametrize(("acceptance", "message"), BAD_ACCEPTANCE)
def test_what_is_no_acceptance_is_refused(acceptance: object, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^acceptance: .*{message}"):
        best_tree(acceptance, 3)  # type: ignore[arg-type]


def test_rounding_may_lift_a_sum_above_one() -> None:
    assert check_acceptance([1.0, 1e-7]).tolist() == [1.0, 1e-7]
    assert check_acceptance(np.array([1, 0], dtype=np.int32)).dtype == np.float64


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3"])
@pytest.mark.parametrize("limit", ["budget", "max_depth", "max_children"])
def test_limits_below_one_are_refused(limit: str, value: object) -> None:
    arguments = {"node_budget" if limit == "budget" else limit: value}
    with pytest.raises(ConfigError, match=f"^{limit}={value} is out of range; expected a whole number, 1 or more$"):
        best_tree([0.5], **{"node_budget": 3} | arguments)  # type: ignore[arg-type]


@pytest.fixture
def optimal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `specdraft trees optimal ARGS`; its exit code, stdout and stderr."""

    def run(*args: object) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["specdraft", "trees", "optimal", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


def test_the_command_draws_the_tree(optimal: Command) -> None:
    code, out, err = optimal("--acceptance-vector", "0.6,0.05,0.3", "--budget", 5)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "5 nodes, 3 levels, 1.5260 expected accepted tokens per step (bonus not counted)"
    assert len(lines) == 1 + 6
    assert "0/0" in out


def test_the_command_writes_json(optimal: Command, tmp_path: Path) -> None:
    code, out, err = optimal("--acceptance-vector", "0.3,0.05,0.6", "--budget", 3, "--free-ranks", "--json")
    expected = pytest.approx(1.26)
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "paths": [[0], [2], [2, 2]],
        "expected_accepted": expected,
        "nodes": 3,
        "depth": 2,
        "filled": True,
    }
    rows = tmp_path / "rows.json"
    rows.write_text("[[0.5, 0.25], [1, 0]]")
    code, out, err = optimal("--acceptance-matrix", rows, "--budget", 3, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "paths": [[0], [1], [0, 0]],
        "expected_accepted": 1.25,
        "nodes": 3,
        "depth": 2,
        "filled": True,
    }


def test_the_command_says_when_the_budget_does_not_fit(optimal: Command) -> None:
    code, out, err = optimal(
        "--acceptance-vector", "0.5,0.1,0.1", "--budget", 9, "--max-depth", 2, "--max-children", 2, "--json"
    )
    assert code == 0
    assert err == "note: budget=9 does not fit within the depth and width; the largest tree has 6 nodes\n"
    answer = json.loads(out)
    assert (answer["nodes"], answer["filled"], len(answer["paths"])) == (6, False, 6)


VECTOR = ("--acceptance-vector", "0.5,0.2")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--budget", 3), "expected one of --acceptance-vector"),
        ((*VECTOR, "--acceptance-matrix", "rows.json", "--budget", 3), "expected one of --acceptance-vector"),
        (("--acceptance-vector", "0.5,x", "--budget", 3), "--acceptance-vector '0.5,x' is not a list of numbers"),
        (("--acceptance-vector", "", "--budget", 3), "--acceptance-vector '' is not a list of numbers"),
        (("--acceptance-vector", "-0.1", "--budget", 3), "--acceptance-vector: rank 0 has -0.1"),
        (("--acceptance-vector", "0.1,nan", "--budget", 3), "--acceptance-vector: rank 1 has nan"),
        (("--acceptance-vector", "0.9,0.2", "--budget", 3), "--acceptance-vector: the probabilities sum to 1.1"),
        ((*VECTOR, "--budget", 0), "budget=0 is not a node budget"),
        ((*VECTOR, "--budget", -3), "budget=-3 is not a node budget"),
        ((*VECTOR, "--budget", 10**9), "budget=1000000000 is too large"),
        ((*VECTOR, "--budget", 3, "--max-depth", 0), "max_depth=0 is out of range"),
        ((*VECTOR, "--budget", 3, "--max-children", -1), "max_children=-1 is out of range"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(optimal: Command, args: tuple[object, ...], message: str) -> None:
    code, out, err = optimal(*args)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "not JSON"),
        ("[[0.5, 0.1]", "not JSON"),
        ("\udcff", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"rows": [[0.5]]}', "expected a list of rows"),
        ("[0.5, 0.1]", "expected a list of rows"),
        ("[]", "expected one or more probabilities"),
        ("[[], []]", "expected one or more probabilities"),
        ('[["0.5"]]', "expected one or more probabilities"),
        ("[[null]]", "expected one or more probabilities"),
        ("[[0.5, 0.1], [0.5]]", "the rows differ in length"),
        ("[[0.5, 0.1], [0.5, NaN]]", "depth 2: rank 1 has nan"),
        ("[[0.5, 0.1], [0.5, 0.6]]", "depth 2: the probabilities sum to 1.1"),
    ],
)
def test_a_bad_matrix_file_is_named(optimal: Command, tmp_path: Path, text: str | None, message: str) -> None:
    rows = tmp_path / "rows.json"
    if text is not None:
        rows.write_bytes(text.encode(errors="surrogateescape"))
    code, out, err = optimal("--acceptance-matrix", rows, "--budget", 3)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: --acceptance-matrix {rows}: {message}")
    assert err.count("\n") == 1
